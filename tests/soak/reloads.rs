//! The configuration and a component change under all of them, for good and for bad.

use crate::{Wrong, random::Random, stage::Stage, tally::Load};
use http::StatusCode;
use std::{rc::Rc, time::Duration};

const PACE: Duration = Duration::from_secs(3);

/// Adds who does it. The last configuration has the listeners of the first.
pub(crate) fn add(load: &mut Load, stage: &Rc<Stage>) {
    load.add("reloads, good and refused", 1, |turn| {
        let stage = Rc::clone(stage);
        async move {
            let mut mark = 1;
            turn.repeat(PACE, async |random| change(&stage, random, &mut mark).await).await;
            stage.gateway.write(&stage.text(mark | 1));
            let ended = reload(&stage).await;
            assert_eq!(ended, StatusCode::OK, "the last reload");
        }
    });
}

async fn change(stage: &Stage, random: &mut Random, mark: &mut usize) -> Result<usize, Wrong> {
    let good = stage.text(*mark);
    let broken = match random.below(8) {
        0 => "[[listener]\n".to_owned(),
        1 => good.replace("name = \"guarded\"", "nam = \"guarded\""),
        2 => good.replace("x-mark", "te"),
        3 => good.replace("header_inject.wasm", "nothing.wasm"),
        4 => {
            stage.new_component(random.below(256));
            return expect(stage, StatusCode::OK).await;
        }
        _ => {
            *mark += 1;
            stage.gateway.write(&stage.text(*mark));
            return expect(stage, StatusCode::OK).await;
        }
    };
    stage.gateway.write(&broken);
    let refused = expect(stage, StatusCode::UNPROCESSABLE_ENTITY).await;
    stage.gateway.write(&good);
    expect(stage, StatusCode::OK).await?;
    refused
}

async fn expect(stage: &Stage, status: StatusCode) -> Result<usize, Wrong> {
    let answered = reload(stage).await;
    if answered == status { Ok(0) } else { Err(format!("{answered} instead of {status}").into()) }
}

async fn reload(stage: &Stage) -> StatusCode {
    stage.gateway.admin().client().post("/reload", "").await.status
}
