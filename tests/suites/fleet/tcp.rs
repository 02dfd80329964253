//! What is no HTTP: servers that speak first, databases, and bytes that nobody knows.

use super::{curl, edge, file, fleet, run, started};
use crate::DAEMON;
use gateway_tests::{
    Backend, GatewayProcess, Raw,
    fleet::{Fleet, Vm},
    must_run, skipped, within,
};
use std::{process::Stdio, sync::mpsc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Child,
};

/// Takes letters, and speaks first.
fn mail_server(vm: &Vm, address: &str) -> (Backend, mpsc::Receiver<Vec<u8>>) {
    let (got, letters) = mpsc::channel();
    let listener = vm.namespace.listen(address).expect("a port");
    let backend = Backend::on(listener, move |stream| {
        let got = got.clone();
        async move {
            // Who leaves in the middle has sent no letter.
            let _ = mail(stream, &got).await;
        }
    });
    (backend, letters)
}

async fn mail(stream: TcpStream, got: &mpsc::Sender<Vec<u8>>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write.write_all(b"220 vm.test ESMTP\r\n").await?;
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match line.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" => "250-vm.test\r\n250 8BITMIME\r\n",
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut letter = Vec::new();
                while !letter.ends_with(b"\r\n.\r\n") {
                    read.read_until(b'\n', &mut letter).await?;
                }
                letter.truncate(letter.len() - 3);
                // The test that looks is there until the end.
                let _ = got.send(letter);
                "250 taken\r\n"
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 fine\r\n",
        };
        write.write_all(answer.as_bytes()).await?;
    }
}

#[test]
fn a_letter_goes_to_a_server_that_speaks_first() {
    fleet("fleet::tcp::a_letter_goes_to_a_server_that_speaks_first", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let (_server, letters) = mail_server(&fleet.a, "[::]:2525");
        let letter = fleet.folder().join("letter");
        std::fs::write(&letter, "subject: hello\r\n\r\nfrom far away\r\n").expect("a file is written");
        let (letter, url) = (letter.display().to_string(), format!("smtps://{}:2525", fleet.a.host()));
        let arguments = ["--mail-from", "a@vm.test", "--mail-rcpt", "b@vm.test", "-T", &letter, &url];
        run(&mut curl(&fleet, &arguments)).await.well();
        let got = letters.try_recv().expect("a letter");
        assert_eq!(String::from_utf8_lossy(&got), "subject: hello\r\n\r\nfrom far away\r\n");
    });
}

async fn redis(fleet: &Fleet, vm: &Vm, bind: &str) -> Child {
    let mut server = vm.namespace.command("redis-server");
    server.args(["--port", "6379", "--bind", bind, "--protected-mode", "no", "--save", "", "--dir"]);
    server.arg(fleet.folder());
    let address = if bind == "::" { "[::1]" } else { "127.0.0.1" };
    started(server, vm, 6379, address).await
}

#[test]
fn redis_is_talked_to_over_tls() {
    let needs = ["redis-server", "redis-cli"];
    fleet("fleet::tcp::redis_is_talked_to_over_tls", &needs, async |fleet| {
        let _edge = edge(&fleet).await;
        let _a = redis(&fleet, &fleet.a, "::").await;
        let _b = redis(&fleet, &fleet.b, "127.0.0.1").await;
        let toml = "[[listener]]\naddress = \"[::]:6380\"\n\
                    [[route]]\nprotocol = \"tcp\"\nto = \"127.0.0.1:6379\"\n";
        let _gateway = GatewayProcess::start_in(&fleet.b.namespace, DAEMON, toml, &[]).await;
        let (large, content) = file(&fleet, "value", 3_000_000);
        for (vm, port) in [(&fleet.a, "6379"), (&fleet.b, "6380")] {
            let (host, ca) = (vm.host(), fleet.ca().display().to_string());
            let cli = format!("redis-cli --tls --sni {host} --cacert {ca} -h {host} -p {port}");
            let line = |line: &str| {
                let mut shell = tokio::process::Command::new("sh");
                shell.args(["-c", line]);
                shell
            };
            assert_eq!(run(&mut line(&format!("{cli} set name value"))).await.well(), "OK\n");
            assert_eq!(run(&mut line(&format!("{cli} get name"))).await.well(), "value\n");
            assert_eq!(run(&mut line(&format!("{cli} -x set large < {large}"))).await.well(), "OK\n");
            run(&mut line(&format!("{cli} --raw get large > {large}-back"))).await.well();
            let back = std::fs::read(format!("{large}-back")).expect("the value");
            assert!(back.strip_suffix(b"\n") == Some(&content), "{} bytes", back.len());
        }
    });
}

/// A program of PostgreSQL's server, which Debian has beside the usual path.
fn of_postgres(program: &str) -> String {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin").join(program)).collect();
    found.retain(|path| path.exists());
    found.pop().map_or_else(|| program.to_owned(), |path| path.display().to_string())
}

/// A database that everybody may use, in a folder of its own. It refuses to be run by root.
async fn postgres(fleet: &Fleet, vm: &Vm) -> Child {
    let home = fleet.folder().join("database");
    std::fs::create_dir(&home).expect("a folder");
    let home = home.display().to_string();
    must_run("chmod", &["755", &fleet.folder().display().to_string()]);
    must_run("chown", &["nobody", &home]);
    let nobody = ["--reuid", "nobody", "--clear-groups"];
    let data = format!("{home}/data");
    let initdb = of_postgres("initdb");
    let made = [&*initdb, "--no-sync", "--auth=trust", "--username=postgres", "-D", &data];
    must_run("setpriv", &[&nobody[..], &made].concat());
    let mut server = vm.namespace.command("setpriv");
    server.args(nobody).args([
        &*of_postgres("postgres"),
        "-D",
        &data,
        "-c",
        "listen_addresses=::",
        "-c",
        "fsync=off",
    ]);
    server.args(["-c", &format!("unix_socket_directories={home}"), "-c", "autovacuum=off"]);
    let hba = format!("{data}/pg_hba.conf");
    std::fs::write(&hba, "host all all all trust\n").expect("a file is written");
    started(server, vm, 5432, "[::1]").await
}

/// psql 17 and later begin with TLS at once; for earlier ones somebody else does.
#[test]
fn psql_asks_a_database() {
    let (server, initdb) = (of_postgres("postgres"), of_postgres("initdb"));
    let needs = ["psql", &server, &initdb];
    fleet("fleet::tcp::psql_asks_a_database", &needs, async |fleet| {
        let _edge = edge(&fleet).await;
        let _database = postgres(&fleet, &fleet.a).await;
        let version = must_run("psql", &["--version"]);
        let major = version.split(|char: char| !char.is_ascii_digit()).find(|digits| !digits.is_empty());
        let major: u32 = major.and_then(|digits| digits.parse().ok()).expect("a version");
        let base = format!("user=postgres dbname=postgres connect_timeout=10 host={}", fleet.a.host());
        let ca = fleet.ca().display().to_string();
        let mut ways = Vec::new();
        if major >= 17 {
            ways.push(format!("{base} port=5432 sslnegotiation=direct sslmode=verify-full sslrootcert={ca}"));
        }
        for by in [By::Connect, By::Direct] {
            let (port, _) = tunnel(&fleet, by).await;
            ways.push(format!("{base} hostaddr=127.0.0.1 port={port} sslmode=disable"));
        }
        for way in ways {
            let script = "create table if not exists t (n int); insert into t select generate_series(1, 100000);\
                          select count(*), sum(length(repeat(n::text, 10))) from t; drop table t";
            let mut psql = tokio::process::Command::new("psql");
            psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", script, &way]);
            assert_eq!(run(&mut psql).await.well(), "100000|4888950\n", "by {way}");
            let mut rows = tokio::process::Command::new("psql");
            rows.args([
                "-X",
                "-A",
                "-t",
                "-c",
                "select n, repeat('x', 100) from generate_series(1, 50000) n",
                &way,
            ]);
            let rows = run(&mut rows).await.well();
            assert_eq!(rows.lines().count(), 50_000, "rows that come in one answer");
        }
    });
}

/// The library that psql stands on, version 17 or later, as Python's driver brings it along: it insists on
/// `postgresql` being agreed on in the handshake.
#[test]
fn a_client_that_begins_with_tls_asks_a_database() {
    const NAME: &str = "fleet::tcp::a_client_that_begins_with_tls_asks_a_database";
    let (server, initdb) = (of_postgres("postgres"), of_postgres("initdb"));
    let version = std::process::Command::new("python3").args(["-c", LIBRARY]).output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0));
    if version.unwrap_or(0) < 170_000 {
        return skipped(NAME, "there is no `psycopg` for `python3` with libpq 17 or later");
    }
    fleet(NAME, &["python3", &server, &initdb], async |fleet| {
        let _edge = edge(&fleet).await;
        let _database = postgres(&fleet, &fleet.a).await;
        let ca = fleet.ca().display().to_string();
        let mut python = tokio::process::Command::new("python3");
        python.args([
            "-c",
            QUESTION,
            &format!(
                "user=postgres dbname=postgres connect_timeout=10 host={} port=5432 \
             sslnegotiation=direct sslmode=verify-full sslrootcert={ca}",
                fleet.a.host()
            ),
        ]);
        assert_eq!(run(&mut python).await.well(), "100000 5000050000\nTrue 1000000\n");
    });
}

const LIBRARY: &str = "import psycopg; print(psycopg.pq.version())";

/// Rows into a table by COPY and back, and a value of a megabyte.
const QUESTION: &str = r#"
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("create temp table t (n bigint)")
    with connection.cursor().copy("copy t from stdin") as copy:
        for n in range(1, 100001):
            copy.write_row((n,))
    print(*connection.execute("select count(*), sum(n) from t").fetchone())
    large = connection.execute("select repeat('x', %s)", (1000000,)).fetchone()[0]
    print(connection.pgconn.ssl_in_use, len(large))
"#;

/// How an older client gets to the database.
#[derive(Debug, Clone, Copy)]
enum By {
    /// `vers-gateway connect`, as a proxy runs it.
    Connect,
    /// TLS at once, which says in its handshake what it carries: the way of psql 17.
    Direct,
}

/// A port of the client that leads to the database.
async fn tunnel(fleet: &Fleet, by: By) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let (target, ca) = (format!("{}:5432", fleet.a.host()), fleet.ca());
    let (client, address) = (fleet.client(&fleet.a).offering(&["postgresql"]), fleet.a.at(5432));
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut connect = tokio::process::Command::new(DAEMON);
            connect.args(["connect", &target, "--ca"]).arg(&ca).kill_on_drop(true);
            let client = client.clone();
            tokio::spawn(async move {
                match by {
                    By::Connect => through(connect, stream).await,
                    By::Direct => {
                        let mut tls = client.connect(address).await.expect("TLS");
                        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
                        // Who leaves first says enough.
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut tls).await;
                    }
                }
            });
        }
    });
    (port, task)
}

/// Puts a program's input and output in place of a connection.
async fn through(mut program: tokio::process::Command, stream: TcpStream) {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("its input");
    let mut output = child.stdout.take().expect("its output");
    let (mut read, mut write) = stream.into_split();
    // The end of one direction is that end only.
    let there = async { tokio::io::copy(&mut read, &mut input).await.map(|_| drop(input)) };
    let back = async { tokio::io::copy(&mut output, &mut write).await.map(|_| drop(write)) };
    let _ = tokio::join!(there, back);
    let _ = child.wait().await;
}

#[test]
fn bytes_that_nobody_knows_go_both_ways() {
    fleet("fleet::tcp::bytes_that_nobody_knows_go_both_ways", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let listener = fleet.a.namespace.listen("[::]:4000").expect("a port");
        let _server = Backend::on(listener, |mut stream| async move {
            let (mut read, mut write) = stream.split();
            let mut all = Vec::new();
            if read.read_to_end(&mut all).await.is_ok() {
                let _ = write.write_all(format!("{} bytes", all.len()).as_bytes()).await;
            }
        });
        let mut client = fleet.client(&fleet.a).raw(fleet.a.at(4000)).await;
        client.send(vec![0; 2 << 20]).await;
        client.finish().await;
        assert_eq!(client.to_end().await, "2097152 bytes", "an end of one direction is no end of the other");
    });
}

#[test]
fn a_connection_that_a_vm_resets_is_no_clean_end() {
    fleet("fleet::tcp::a_connection_that_a_vm_resets_is_no_clean_end", &[], async |fleet| {
        let _edge = edge(&fleet).await;
        let listener = fleet.a.namespace.listen("[::]:4000").expect("a port");
        let _server = Backend::on(listener, |mut stream| async move {
            let _ = stream.write_all(b"half").await;
            let mut word = [0; 2];
            let _ = stream.read_exact(&mut word).await;
            super::faults::reset(stream);
        });
        let mut client: Raw<_> = fleet.client(&fleet.a).raw(fleet.a.at(4000)).await;
        assert_eq!(client.exactly(4).await, b"half");
        client.send("go").await;
        let end = within("the end", client.stream.read(&mut [0; 16])).await;
        assert!(end.is_err(), "{end:?}");
    });
}
