//! What was acknowledged survives `kill -9`, whenever it comes, and what was deleted stays so.

use super::text;
use gateway_tests::{Client, GatewayProcess, eventually};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Times that the daemon is killed; `VERS_KILLS` says more.
const KILLS: usize = 8;

/// Clients that write at the same time, each with VMs of its own.
const WRITERS: usize = 6;

/// What a client was told last of each of its VMs; none where that it is gone.
type Told = Arc<Mutex<BTreeMap<String, Option<u64>>>>;

/// Registers and removes, until there is no gateway any more. What is asked and not answered is not certain,
/// and is taken out of what was told before it is asked.
async fn write(client: Client, writer: usize, told: Told, from: u64) -> u64 {
    let Ok(mut kept) = client.connect().await else { return from };
    let mut number = from;
    loop {
        number += 1;
        let id = format!("vm-{writer}-{}", number % 20);
        let before = told.lock().expect("no panic").remove(&id);
        let delete = before.flatten().is_some() && number.is_multiple_of(3);
        let answer = if delete {
            kept.try_send(Method::DELETE, &format!("/registry/vms/{id}"), "".into()).await
        } else {
            let vm = json!({ "id": id, "name": "n", "role": "worker", "address": "a.test", "ttl": 3600,
                "metadata": { "number": number } });
            kept.try_send(Method::POST, "/registry/vms", vm.to_string().into()).await
        };
        match answer {
            Ok(answer) if answer.status.is_success() => {
                told.lock().expect("no panic").insert(id, (!delete).then_some(number));
            }
            Ok(answer) if answer.status == 404 => {}
            Ok(answer) => panic!("{}", answer.text()),
            Err(_) => return number,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let kills = std::env::var("VERS_KILLS").ok().map_or(KILLS, |kills| kills.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("registry.redb");
    let toml = text(&format!("store = \"file:{}\"", store.display()));
    let told = Told::default();
    let mut numbers = [0; WRITERS];
    let (mut checked, mut writes) = (0, 0);
    for kill in 0..=kills {
        let mut gateway = GatewayProcess::start(crate::DAEMON, &toml).await;
        let client = Client::new(gateway.addr_of("[::]:0").await);
        let listed = client.get("/registry/vms").await;
        let listed: Value = serde_json::from_slice(&listed.body).expect("JSON");
        let found: BTreeMap<&str, u64> = listed["vms"]
            .as_array()
            .expect("VMs")
            .iter()
            .filter_map(|vm| Some((vm["id"].as_str()?, vm["metadata"]["number"].as_u64()?)))
            .collect();
        for (id, number) in &*told.lock().expect("no panic") {
            checked += 1;
            assert_eq!(found.get(&**id), number.as_ref(), "{id} after kill {kill}: {listed}");
        }
        let writers: Vec<_> = numbers
            .iter()
            .enumerate()
            .map(|(n, from)| tokio::spawn(write(client.clone(), n, Arc::clone(&told), *from)))
            .collect();
        // Not a time that means anything: any moment will do.
        let moment = Duration::from_millis(u64::from(rand_byte(kill)) % 120 + 5);
        let begun = Instant::now();
        eventually("a moment", async || (begun.elapsed() > moment).then_some(())).await;
        gateway.signal(rustix::process::Signal::KILL);
        gateway.ended().await;
        for (number, writer) in numbers.iter_mut().zip(writers) {
            let last = writer.await.expect("no panic");
            writes += last - *number;
            *number = last;
        }
    }
    assert!(checked > kills * WRITERS && writes > kills as u64 * WRITERS as u64, "{checked} of {writes}");
    println!("{kills} kills, {writes} writes, {checked} answers held");
}

/// Another one for each kill, the same in each run.
fn rand_byte(seed: usize) -> u8 {
    seed.wrapping_mul(2_654_435_761).to_be_bytes()[5]
}
