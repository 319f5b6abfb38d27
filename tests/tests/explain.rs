//! Why is a framework offered what it is offered? Three doors, one answer.

use anyhow::{Context, Result, ensure};
use prost::Message;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use tepui_proto::{json as proto_json, tepui::operator::v1::operator_client::OperatorClient};
use tepui_scheduler_api::v1::master::{Call, Response};
use tepui_tests::{
    cluster::{Cluster, wait_for},
    http,
    scheduler::Scheduler,
};
use tonic::{Code, Status, transport::Endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks over gRPC.
fn by_grpc(master: SocketAddr, call: Call) -> Result<Result<Response, Status>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{master}"))?;
        let mut client = OperatorClient::new(endpoint.connect().await?);
        Ok(client.call(call).await.map(tonic::Response::into_inner))
    })
}

/// Without the seconds that go by from one question to the next.
fn timeless(mut explanation: Value) -> Value {
    for client in explanation["clients"].as_array_mut().into_iter().flatten() {
        for reason in client["reasons"].as_array_mut().into_iter().flatten() {
            for end in ["first_ends_in_seconds", "last_ends_in_seconds"] {
                reason.as_object_mut().and_then(|it| it.remove(end));
            }
        }
    }
    explanation
}

#[test]
fn three_doors_explain_alike() -> Result<()> {
    let mut cluster = Cluster::start(&[])?;
    cluster.add_agent(&["--containerizers=process", "--resources=cpus:1;mem:64"])?;
    let master = cluster.master.address;
    let mut scheduler = Scheduler::plain(master, "asks")?;
    let offer = scheduler.offer(|_| true)?;
    scheduler.decline(&offer, 3600.0)?;
    let id = &scheduler.framework_id;
    let path = format!("/allocator/explain?framework={id}&role=*");
    let by_get = wait_for("the filter to be told of", PATIENCE, || {
        let answer = http::get(master, &path)?;
        let reason = &answer["clients"][0]["reasons"][0];
        Ok((reason["reason"] == "FILTERED").then_some(answer))
    })?;
    let left = &by_get["clients"][0]["reasons"][0]["last_ends_in_seconds"];
    ensure!(left.as_f64().is_some_and(|it| it > 3000.0), "{by_get}");
    let agent = http::get(master, "/slaves")?["slaves"][0]["id"].clone();
    let example = &by_get["clients"][0]["reasons"][0]["example"]["value"];
    ensure!(*example == agent, "{by_get}");
    let by_get = timeless(by_get);

    let call = json!({
        "type": "EXPLAIN",
        "explain": { "framework_id": { "value": id }, "role": "*" }
    });
    let answer = http::post(master, "/api/v1", &[], &call)?.json()?;
    ensure!(answer["type"] == "EXPLAIN", "{answer}");
    ensure!(timeless(answer["explain"].clone()) == by_get, "{answer}");

    let call: Call = proto_json::from_value(&call)?;
    let protobuf = "application/x-protobuf";
    let headers = [("Content-Type", protobuf), ("Accept", protobuf)];
    let answer = http::send(master, "POST", "/api/v1", &headers, &call.encode_to_vec())?;
    ensure!(answer.status == 200, "{}", answer.status);
    let answer = Response::decode(&*answer.body)?;
    let explanation = answer.explain.as_ref().context("explain")?;
    ensure!(timeless(proto_json::to_value(explanation)) == by_get);

    let answer = by_grpc(master, call)??;
    let explanation = answer.explain.as_ref().context("explain")?;
    ensure!(timeless(proto_json::to_value(explanation)) == by_get);
    Ok(())
}

#[test]
fn wrong_questions_name_the_field() -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let master = cluster.master.address;
    for (explain, status, code, names) in [
        (Value::Null, 400, Code::InvalidArgument, "'explain'"),
        (
            json!({}),
            400,
            Code::InvalidArgument,
            "'explain.framework_id', 'explain.role'",
        ),
        (
            json!({ "role": "a//b" }),
            400,
            Code::InvalidArgument,
            "explain.role: ",
        ),
        (
            json!({ "framework_id": { "value": "" } }),
            400,
            Code::InvalidArgument,
            "explain.framework_id",
        ),
        (
            json!({ "framework_id": { "value": "nobody" } }),
            404,
            Code::NotFound,
            "explain.framework_id: no framework 'nobody'",
        ),
    ] {
        let mut call = json!({ "type": "EXPLAIN" });
        if !explain.is_null() {
            call["explain"] = explain;
        }
        let answer = http::post(master, "/api/v1", &[], &call)?;
        ensure!(
            answer.status == status && answer.text().contains(names),
            "{call}: {} {}",
            answer.status,
            answer.text()
        );
        let refused = by_grpc(master, proto_json::from_value(&call)?)?;
        let refused = refused.err().context("it is refused")?;
        ensure!(
            refused.code() == code && refused.message().contains(names),
            "{call}: {refused}"
        );
    }
    for (query, status, names) in [
        ("", 400, "'framework', 'role'"),
        ("?role=a//b", 400, "role: "),
        ("?framework=nobody", 404, "framework: no framework 'nobody'"),
    ] {
        let path = format!("/allocator/explain{query}");
        let answer = http::send(master, "GET", &path, &[], b"")?;
        ensure!(
            answer.status == status && answer.text().contains(names),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    // Nobody is in the role: an answer, not an error.
    let nobody = http::get(master, "/allocator/explain?role=quiet")?;
    ensure!(
        nobody["complete"] == true && nobody["clients"].is_null(),
        "{nobody}"
    );
    Ok(())
}
