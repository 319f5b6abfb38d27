//! The rules of JSON and of required fields, one by one.

use bytes::Bytes;
use prost::Message;
use tepui_proto::{
    json,
    mesos::v1::{self, scheduler::Call},
    wire,
};

fn call(text: &str) -> Result<Call, String> {
    json::decode::<Call>(text.as_bytes()).map_err(|error| error.to_string())
}

fn refuse_seconds(value: &str) -> Result<f64, String> {
    let call = call(&format!(
        r#"{{"decline": {{"offer_ids": [], "filters": {{"refuse_seconds": {value}}}}}}}"#
    ))?;
    let filters = call.decline.and_then(|it| it.filters);
    filters
        .and_then(|it| it.refuse_seconds)
        .ok_or_else(|| "unset".to_owned())
}

fn port(value: &str) -> Result<i32, String> {
    let text = format!(r#"{{"hostname": "a", "port": {value}}}"#);
    let info: v1::AgentInfo = json::decode(text.as_bytes()).map_err(|error| error.to_string())?;
    info.port.ok_or_else(|| "unset".to_owned())
}

#[test]
fn numbers_may_stand_in_strings() {
    assert_eq!(refuse_seconds("5"), Ok(5.0));
    assert_eq!(refuse_seconds(r#""5.5""#), Ok(5.5));
    assert_eq!(refuse_seconds(r#""-1e3""#), Ok(-1000.0));
    assert_eq!(refuse_seconds(r#""Infinity""#), Ok(f64::INFINITY));
    assert_eq!(refuse_seconds(r#""-Infinity""#), Ok(f64::NEG_INFINITY));
    assert_eq!(port(r#""80""#), Ok(80));
    assert_eq!(
        refuse_seconds(r#""x""#).unwrap_err(),
        r#"decline.filters.refuse_seconds: expected a number, found the string "x""#
    );
    assert_eq!(
        refuse_seconds("true").unwrap_err(),
        "decline.filters.refuse_seconds: expected a number, found a boolean"
    );
}

#[test]
fn integers_lose_their_fraction_and_keep_their_bounds() {
    assert_eq!(port("80.0"), Ok(80));
    assert_eq!(port("1e3"), Ok(1000));
    assert_eq!(port("80.9"), Ok(80));
    assert_eq!(port("-80.9"), Ok(-80));
    assert_eq!(port("2147483647"), Ok(i32::MAX));
    assert_eq!(
        port("2147483648").unwrap_err(),
        "port: expected a whole number from -2147483648 to 2147483647, found 2147483648"
    );
    assert!(port("1e300").is_err());
    let range = |end: &str| {
        let text = format!(r#"{{"begin": 0, "end": {end}}}"#);
        json::decode::<v1::value::Range>(text.as_bytes()).map(|it| it.end)
    };
    assert_eq!(range("18446744073709551615").ok(), Some(u64::MAX));
    assert!(range("18446744073709551616").is_err());
    assert!(range("-1").is_err());
}

#[test]
fn booleans_may_stand_in_strings() {
    let checkpoint = |value: &str| {
        let text = format!(r#"{{"user": "", "name": "", "checkpoint": {value}}}"#);
        json::decode::<v1::FrameworkInfo>(text.as_bytes()).map(|it| it.checkpoint)
    };
    assert_eq!(checkpoint("true").ok(), Some(Some(true)));
    assert_eq!(checkpoint(r#""true""#).ok(), Some(Some(true)));
    assert_eq!(checkpoint(r#""false""#).ok(), Some(Some(false)));
    assert_eq!(checkpoint("null").ok(), Some(None));
    for wrong in ["1", r#""yes""#, "{}", "[true]"] {
        assert!(checkpoint(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn null_unknown_keys_and_earlier_duplicates_do_not_count() {
    let text = r#"{"type": "KILL", "kill": null, "what": {"ever": [1]}, "type": "REVIVE"}"#;
    let call = call(text).expect("accepted");
    assert_eq!(call.r#type(), v1::scheduler::call::Type::Revive);
    assert_eq!(call.kill, None);
    let error = self::call(r#"{"kill": {"task_id": null}}"#).unwrap_err();
    assert_eq!(error, "kill.task_id: required field is missing");
}

#[test]
fn an_unknown_enum_name_is_absent() {
    assert_eq!(call(r#"{"type": "NOPE"}"#).expect("accepted").r#type, None);
    assert_eq!(
        call(r#"{"type": "revive"}"#).expect("accepted").r#type,
        None
    );
    let capabilities = r#"{"user": "", "name": "", "capabilities":
        [{"type": "MULTI_ROLE"}, {"type": "NEWER_THAN_THIS"}]}"#;
    let info: v1::FrameworkInfo = json::decode(capabilities.as_bytes()).expect("accepted");
    let types: Vec<_> = info.capabilities.iter().map(|it| it.r#type).collect();
    assert_eq!(types, [Some(6), None]);
    let error = json::decode::<v1::Resource>(br#"{"name": "cpus", "type": "NOPE"}"#);
    assert_eq!(
        error.unwrap_err().to_string(),
        r#"type: "NOPE" is not a name of mesos.v1.Value.Type"#
    );
}

#[test]
fn lists_and_single_values() {
    let one = call(r#"{"accept": {"offer_ids": {"value": "a"}}}"#);
    let list = call(r#"{"accept": {"offer_ids": [{"value": "a"}, null]}}"#);
    assert_eq!(one, list);
    assert_eq!(
        call(r#"{"accept": [{}]}"#).unwrap_err(),
        "accept: expected an object, found an array"
    );
    assert_eq!(
        call(r#"{"revive": {"roles": ["a", ["b"]]}}"#).unwrap_err(),
        "revive.roles[1]: expected a string, found an array"
    );
}

#[test]
fn errors_name_the_whole_path() {
    let launch = |resource: &str| {
        format!(
            r#"{{"accept": {{"operations": [{{"type": "LAUNCH", "launch": {{"task_infos": [
            {{"name": "", "task_id": {{"value": "a"}}, "agent_id": {{"value": "b"}},
            "resources": [{resource}], "limits": {{"mem": {{"value": "lots"}}}}}}]}}}}]}}}}"#
        )
    };
    let resource = r#"{"name": "cpus", "type": "SCALAR", "scalar": {"value": {}}}"#;
    assert_eq!(
        call(&launch(resource)).unwrap_err(),
        "accept.operations[0].launch.task_infos[0].resources[0].scalar.value: \
         expected a number, found an object"
    );
    assert_eq!(
        call(&launch("")).unwrap_err(),
        "accept.operations[0].launch.task_infos[0].limits[\"mem\"].value: \
         expected a number, found the string \"lots\""
    );
    assert_eq!(
        call(&launch(r#"{"type": "SCALAR"}"#)).unwrap_err(),
        "accept.operations[0].launch.task_infos[0].resources[0].name: required field is missing"
    );
}

#[test]
fn bytes_are_base64_with_or_without_padding() {
    let data = |text: &str| {
        let text = format!(
            r#"{{"message": {{"agent_id": {{"value": ""}}, "executor_id": {{"value": ""}},
            "data": "{text}"}}}}"#
        );
        call(&text).map(|it| it.message.expect("set").data)
    };
    assert_eq!(data("cGluZw==").expect("accepted"), "ping");
    assert_eq!(data("cGluZw").expect("accepted"), "ping");
    assert_eq!(data("+/8=").expect("accepted"), &[0xfb, 0xff][..]);
    assert!(data("cGl-").is_err());
    assert!(data("cG lu").is_err());
}

#[test]
fn unset_fields_show_their_defaults_unless_deprecated() {
    let uri = v1::command_info::Uri {
        value: "x".into(),
        ..Default::default()
    };
    let text = r#"{"value":"x","extract":true}"#;
    assert_eq!(json::encode(&uri), text);
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(json::to_value(&uri), value);
    // `role` of a resource has the deprecated default "*".
    let resource = v1::Resource {
        name: "cpus".into(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value: 4.0 }),
        ..Default::default()
    };
    let text = r#"{"name":"cpus","type":"SCALAR","scalar":{"value":4.0}}"#;
    assert_eq!(json::encode(&resource), text);
}

#[test]
fn an_enum_number_without_a_name_is_written_as_it_is() {
    let call = Call {
        r#type: Some(77),
        ..Default::default()
    };
    assert_eq!(json::encode(&call), r#"{"type":77}"#);
}

#[test]
fn nesting_ends_somewhere() {
    let nested = |depth: usize| {
        let parents = r#"{"value":"a","parent":"#.repeat(depth);
        format!(r#"{parents}{{"value":"a"}}{}"#, "}".repeat(depth))
    };
    let id = json::decode::<v1::ContainerId>(nested(100).as_bytes()).expect("accepted");
    assert_eq!(json::encode(&id), nested(100));
    let bytes = id.encode_to_vec();
    assert_eq!(wire::decode::<v1::ContainerId>(&bytes[..]), Ok(id.clone()));
    assert!(json::decode::<v1::ContainerId>(nested(101).as_bytes()).is_err());
    assert!(json::decode::<v1::ContainerId>(nested(100_000).as_bytes()).is_err());
    // Deeper ones of our own are written, those of others refused.
    let deeper = v1::ContainerId {
        value: "a".into(),
        parent: Some(Box::new(id)),
    };
    assert_eq!(json::encode(&deeper), nested(101));
    let bytes = deeper.encode_to_vec();
    assert!(wire::decode::<v1::ContainerId>(&bytes[..]).is_err());
    assert!(json::encode_wire("mesos.v1.ContainerID", &bytes, &mut String::new()).is_err());
}

#[test]
fn protobuf_without_a_required_field_is_refused_with_its_path() {
    let ids = |values: [Option<&str>; 2]| {
        let mut accept = Vec::new();
        for value in values {
            let mut id = Vec::new();
            if let Some(value) = value {
                prost::encoding::string::encode(1, &value.to_owned(), &mut id);
            }
            prost::encoding::bytes::encode(1, &id, &mut accept);
        }
        let mut call = Vec::new();
        // Call.accept
        prost::encoding::bytes::encode(4, &accept, &mut call);
        Bytes::from(call)
    };
    let call = wire::decode::<Call>(ids([Some("a"), Some("b")])).expect("whole");
    assert_eq!(call.accept.expect("set").offer_ids[1].value, "b");
    assert_eq!(
        wire::decode::<Call>(ids([Some("a"), None]))
            .unwrap_err()
            .to_string(),
        "accept.offer_ids[1].value: required field is missing"
    );
}

#[test]
fn an_unknown_number_in_a_required_enum_counts_as_missing() {
    let mut resource = v1::Resource {
        name: "cpus".into(),
        r#type: v1::value::Type::Scalar.into(),
        ..Default::default()
    };
    assert!(wire::decode::<v1::Resource>(&resource.encode_to_vec()[..]).is_ok());
    resource.r#type = 99;
    let error = wire::decode::<v1::Resource>(&resource.encode_to_vec()[..]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "type: required field is missing"
    );
}

#[test]
fn parts_are_cut_out_with_everything_in_them() {
    // A task with a field that nobody knows.
    let mut task = v1::TaskInfo {
        name: "a".into(),
        ..Default::default()
    }
    .encode_to_vec();
    prost::encoding::string::encode(4_000, &"from the future".to_owned(), &mut task);
    let mut launch = Vec::new();
    prost::encoding::bytes::encode(1, &task, &mut launch);
    prost::encoding::bytes::encode(1, &task, &mut launch);
    let mut operation = Vec::new();
    prost::encoding::int32::encode(1, &1, &mut operation);
    prost::encoding::bytes::encode(2, &launch, &mut operation);
    let operation = Bytes::from(operation);

    let found = wire::path(&operation, &[2]).expect("set");
    assert_eq!(found, launch);
    // No copy was made.
    assert!(operation.as_ptr_range().contains(&found.as_ptr()));
    let tasks: Vec<Bytes> = wire::shared_fields(&found, 1).collect();
    assert_eq!(tasks, [task.clone(), task]);
    assert_eq!(wire::path(&operation, &[3]), None);
    assert_eq!(wire::path(&operation, &[2, 2]), None);
    assert_eq!(wire::fields(&operation, 1).count(), 0);

    // A field that comes in two parts means both of them together.
    let twice = Bytes::from([&operation[..], &operation[..]].concat());
    let found = wire::path(&twice, &[2]).expect("set");
    assert_eq!(wire::fields(&found, 1).count(), 4);
}

#[test]
fn a_message_that_is_not_there_is_an_error() {
    assert_eq!(
        json::decode_wire("no.such.Message", b"{}")
            .unwrap_err()
            .to_string(),
        r#"there is no message "no.such.Message""#
    );
    assert!(json::encode_wire("no.such.Message", b"", &mut String::new()).is_err());
    assert!(wire::check("no.such.Message", b"").is_err());
}

#[test]
fn entries_of_maps_are_as_whole_as_everything_else() {
    let quantities = |entries: &[&[u8]]| {
        let mut bytes = Vec::new();
        for entry in entries {
            prost::encoding::bytes::encode(1, &entry.to_vec(), &mut bytes);
        }
        bytes
    };
    let name = "mesos.v1.OfferFilters.ResourceQuantities";
    let two = [&[0x09][..], &2.0f64.to_le_bytes()].concat();
    let with_value = [&[0x0a, 1, b'b', 0x12, 9][..], &two].concat();
    // The value in two parts, the first of them empty.
    let in_parts = [&[0x0a, 1, b'a', 0x12, 0, 0x12, 9][..], &two].concat();
    let bytes = quantities(&[&with_value, &in_parts, &with_value]);
    assert_eq!(wire::check(name, &bytes), Ok(()));
    let mut text = String::new();
    json::encode_wire(name, &bytes, &mut text).expect("whole");
    assert_eq!(
        text,
        r#"{"quantities":{"a":{"value":2.0},"b":{"value":2.0}}}"#
    );
    // Without a value it is an empty message, which misses a field.
    let error = wire::check(name, &quantities(&[&with_value, &[0x0a, 1, b'c']]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "quantities[1].value.value: required field is missing"
    );
}
