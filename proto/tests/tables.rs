//! The compiled descriptors beside the tables of the wire, row by row, both ways.
//!
//! `extensions.tsv` has what we added to messages of Mesos: fields and enum values with numbers
//! that Mesos will never give out.

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::collections::BTreeSet;

/// A row of `wire-v1.tsv`: message, field, number, label, type, default, and the flags
/// that the wire knows (deprecated, map and oneof; comments are not part of it).
type Row = (String, String, String, String, String, String, String);

fn set() -> FileDescriptorSet {
    FileDescriptorSet::decode(tepui_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set")
}

fn table(name: &str) -> Vec<Vec<String>> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the table");
    let rows = text.lines().skip(1).map(|line| {
        let mut row: Vec<String> = line.split('\t').map(str::to_owned).collect();
        row.resize(8, String::new());
        row
    });
    rows.collect()
}

/// The rows of a table of Mesos, and of what we added to it: fields have a label, values none.
fn with_extensions(name: &str, fields: bool) -> Vec<Vec<String>> {
    let ours = table("extensions.tsv");
    assert!(!ours.is_empty());
    for row in &ours {
        let number: u32 = row[3].parse().expect("a number");
        assert!(number >= 10_000, "{row:?}");
    }
    let ours = ours.into_iter().filter(|row| row[4].is_empty() != fields);
    table(name).into_iter().chain(ours).collect()
}

/// The message and those inside of it, with their full names.
fn walk(scope: &str, message: &DescriptorProto, found: &mut Vec<(String, DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        walk(&name, nested, found);
    }
    found.push((name, message.clone()));
}

fn messages(set: &FileDescriptorSet, prefix: &str) -> Vec<(String, DescriptorProto)> {
    let mut found = Vec::new();
    for file in set
        .file
        .iter()
        .filter(|it| it.package().starts_with(prefix))
    {
        for message in &file.message_type {
            walk(file.package(), message, &mut found);
        }
    }
    found
}

fn field_row(
    message: &str,
    owner: &DescriptorProto,
    field: &FieldDescriptorProto,
    all: &[(String, DescriptorProto)],
) -> Row {
    let type_name = field.type_name().trim_start_matches('.').to_owned();
    let scalar = |kind: Type| format!("{kind:?}").to_lowercase();
    let kind = match field.r#type() {
        Type::Message | Type::Enum => type_name.clone(),
        other => scalar(other),
    };
    let entry = all
        .iter()
        .find(|(name, message)| {
            *name == type_name && message.options.as_ref().is_some_and(|it| it.map_entry())
        })
        .map(|(_, entry)| entry);
    let mut flags = Vec::new();
    if let Some(entry) = entry {
        let part = |index: usize| match entry.field[index].r#type() {
            Type::Message | Type::Enum => entry.field[index]
                .type_name()
                .trim_start_matches('.')
                .to_owned(),
            other => scalar(other),
        };
        flags.push(format!("map<{},{}>", part(0), part(1)));
    }
    if owner.options.as_ref().is_some_and(|it| it.map_entry()) {
        flags.push("map-entry".to_owned());
    }
    if let Some(index) = field.oneof_index {
        flags.push(format!("oneof:{}", owner.oneof_decl[index as usize].name()));
    }
    if field.options.as_ref().is_some_and(|it| it.deprecated()) {
        flags.push("deprecated".to_owned());
    }
    let label = match field.label() {
        Label::Required => "required",
        Label::Optional => "optional",
        Label::Repeated => "repeated",
    };
    (
        message.to_owned(),
        field.name().to_owned(),
        field.number().to_string(),
        label.to_owned(),
        kind,
        field.default_value().to_owned(),
        flags.join(","),
    )
}

#[test]
fn every_field_is_in_the_table_and_every_row_is_a_field() {
    let all = messages(&set(), "mesos.v1");
    let mut compiled = BTreeSet::new();
    for (name, message) in &all {
        if message.field.is_empty() {
            let empty = String::new;
            compiled.insert((
                name.clone(),
                "(no fields)".to_owned(),
                empty(),
                empty(),
                empty(),
                empty(),
                empty(),
            ));
        }
        for field in &message.field {
            compiled.insert(field_row(name, message, field, &all));
        }
    }
    let tabled: BTreeSet<Row> = with_extensions("wire-v1.tsv", true)
        .into_iter()
        .map(|row| {
            let flags = if row[7].starts_with("map<") {
                row[7].clone()
            } else {
                let known = |flag: &&str| !flag.starts_with("comment-");
                row[7]
                    .split(',')
                    .filter(known)
                    .collect::<Vec<_>>()
                    .join(",")
            };
            (
                row[1].clone(),
                row[2].clone(),
                row[3].clone(),
                row[4].clone(),
                row[5].clone(),
                row[6].clone(),
                flags,
            )
        })
        .collect();
    let missing: Vec<_> = tabled.difference(&compiled).collect();
    let added: Vec<_> = compiled.difference(&tabled).collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "only in the table: {missing:#?}\nonly compiled: {added:#?}"
    );
    assert!(tabled.len() > 1000);
}

#[test]
fn every_enum_value_is_in_the_table_and_every_row_is_a_value() {
    fn add(
        scope: &str,
        item: &EnumDescriptorProto,
        found: &mut BTreeSet<(String, String, i32, bool)>,
    ) {
        for value in &item.value {
            let deprecated = value.options.as_ref().is_some_and(|it| it.deprecated());
            found.insert((
                format!("{scope}.{}", item.name()),
                value.name().to_owned(),
                value.number(),
                deprecated,
            ));
        }
    }
    let set = set();
    let mut compiled = BTreeSet::new();
    for file in set
        .file
        .iter()
        .filter(|it| it.package().starts_with("mesos.v1"))
    {
        for item in &file.enum_type {
            add(file.package(), item, &mut compiled);
        }
    }
    for (name, message) in messages(&set, "mesos.v1") {
        for item in &message.enum_type {
            add(&name, item, &mut compiled);
        }
    }
    let tabled: BTreeSet<_> = with_extensions("enums-v1.tsv", false)
        .into_iter()
        .map(|row| {
            let number = row[3].parse().expect("a number");
            (
                row[1].clone(),
                row[2].clone(),
                number,
                row[4].contains("deprecated"),
            )
        })
        .collect();
    assert_eq!(compiled, tabled);
}

#[test]
fn every_message_and_enum_is_in_the_file_and_package_of_the_table() {
    let mut files = BTreeSet::new();
    let set = set();
    for file in &set.file {
        let mut messages = Vec::new();
        for message in &file.message_type {
            walk(file.package(), message, &mut messages);
        }
        let owned = |scope: &str, item: &EnumDescriptorProto| format!("{scope}.{}", item.name());
        for item in &file.enum_type {
            files.insert((file.name().to_owned(), owned(file.package(), item)));
        }
        for (name, message) in messages {
            for item in &message.enum_type {
                files.insert((file.name().to_owned(), owned(&name, item)));
            }
            files.insert((format!("{} ({})", file.name(), file.package()), name));
        }
    }
    let rows = table("wire-v1.tsv")
        .into_iter()
        .chain(table("enums-v1.tsv"));
    for row in rows {
        let row = (row[0].clone(), row[1].clone());
        assert!(files.contains(&row), "{row:?}");
    }
}
