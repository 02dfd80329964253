//! What reaches the backend, and what comes back.

use gateway_tests::{Backend, TestGateway};

fn gateway(backend: &Backend) -> TestGateway {
    TestGateway::start(&format!(
        "[[listener]]\naddress = \"[::]:0\"\n[[route]]\nname = \"app\"\nto = \"{}\"\n",
        backend.addr()
    ))
}

#[tokio::test]
async fn a_request_and_its_answer_pass() {
    let backend = Backend::echo().await;
    let gateway = gateway(&backend);
    let answer = gateway.client().post("/x?y=1", "ping").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ping"));
    let heard = backend.last();
    assert_eq!((heard.uri.path(), heard.uri.query()), ("/x", Some("y=1")));
    assert_eq!(heard.header("x-forwarded-for"), "::1");
}
