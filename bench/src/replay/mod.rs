//! `replay`: drives the allocator alone from JSON lines, so that implementations can be compared.
//!
//! One line is one operation ([`line`]); a line that cannot be read, or asks for what cannot be,
//! is answered by `{"error":...,"line":n}` and changes nothing ([`session`]). A cycle is answered
//! by one line with what it gave, at once, so that a partner on a pipe can decide what to use.

mod line;
mod session;

use anyhow::{Context, Result};
use serde::Serialize;
use session::Session;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::PathBuf,
};
use tepui_allocator::AgentOrder;

/// Longer lines are refused: an agent with all the ranges that it may have takes a tenth of it.
const MAX_LINE: u64 = 4 << 20;

/// Options of `tepui-bench replay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Operations, one JSON object a line; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// In which order a cycle looks at agents
    #[arg(long, value_enum, default_value_t = Order::Hashed)]
    agent_order: Order,
    /// The hashed order is drawn from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Order {
    /// Drawn anew for each cycle
    Hashed,
    /// By rising id, compared as text
    Id,
}

/// What a bad line is answered by.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    error: &'a str,
    line: u64,
}

/// Reads operations until their end.
///
/// # Errors
/// The file cannot be read; standard output is closed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let order = match options.agent_order {
        Order::Hashed => AgentOrder::Hashed,
        Order::Id => AgentOrder::Id,
    };
    let session = Session::new(order, options.seed);
    let name = options.file.display();
    let out = BufWriter::new(io::stdout().lock());
    let ended = match options.file.as_os_str() == "-" {
        true => replay(io::stdin().lock(), out, session),
        false => {
            let file = File::open(&options.file).with_context(|| format!("opening {name}"))?;
            replay(BufReader::new(file), out, session)
        }
    };
    match ended {
        // Who reads it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.with_context(|| format!("replaying {name}")),
    }
}

fn replay(mut input: impl BufRead, mut out: impl Write, mut session: Session) -> io::Result<()> {
    let mut number = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut input).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return out.flush();
        }
        number += 1;
        let is_whole = line.last() == Some(&b'\n') || (read as u64) < MAX_LINE;
        let answer = match is_whole {
            true => answer(&mut session, &line),
            false => {
                input.skip_until(b'\n')?;
                Err(format!("the line has more than {MAX_LINE} bytes"))
            }
        };
        match answer {
            Ok(None) => continue,
            Ok(Some(answer)) => serde_json::to_writer(&mut out, &answer)?,
            Err(error) => serde_json::to_writer(
                &mut out,
                &Refusal {
                    error: &error,
                    line: number,
                },
            )?,
        }
        out.write_all(b"\n")?;
        // A partner waits for it.
        out.flush()?;
    }
}

fn answer(session: &mut Session, line: &[u8]) -> Result<Option<session::Answer>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned())?;
    session.apply(line::read(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::select};

    fn run(lines: &[String]) -> Vec<String> {
        let mut out = Vec::new();
        let session = Session::new(AgentOrder::Id, 1);
        replay(lines.join("\n").as_bytes(), &mut out, session).unwrap();
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn answers(lines: &[&str]) -> Vec<String> {
        let owned: Vec<String> = lines.iter().map(|it| (*it).to_owned()).collect();
        run(&owned)
    }

    #[test]
    fn hostile_numbers_are_refused_by_name() {
        let deep = vec!["r"; 500].join("/");
        let ranges: Vec<String> = (0..20_000).map(|it| format!("{0}-{0}", it * 2)).collect();
        let ranges = ranges.join(",");
        for (line, says) in [
            ("{", "no JSON: EOF while parsing an object at column 1"),
            ("[]", "expected an object"),
            ("{}", "op is missing"),
            (r#"{"op":"dance"}"#, "agent, remove_agent"),
            (r#"{"op":1}"#, "op is 1"),
            (r#"{"op":"agent","id":"a"}"#, "resources is missing"),
            (r#"{"op":"agent","id":"","resources":{}}"#, "id"),
            (r#"{"op":"agent","id":"a/../b","resources":{}}"#, "id"),
            (r#"{"op":"agent","id":7,"resources":{}}"#, "id is 7"),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":-1}}"#,
                "at least 0",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":1e18}}"#,
                "at most 1e12",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":1e999}}"#,
                "out of range",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":NaN}}"#,
                "expected value",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":"NaN"}}"#,
                "finite",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"cpus":true}}"#,
                "a number",
            ),
            (r#"{"op":"agent","id":"a","resources":{"a;mem":1}}"#, "name"),
            (
                r#"{"op":"agent","id":"a","resources":{"ports":"[5-1]"}}"#,
                "before it begins",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{"ports":"[1-"}}"#,
                "no ']'",
            ),
            (
                r#"{"op":"agent","id":"a","resources":{},"size":1}"#,
                "no field \"size\"",
            ),
            (
                r#"{"op":"framework","id":"f","roles":[]}"#,
                "roles is empty",
            ),
            (r#"{"op":"framework","id":"f","roles":["a","a"]}"#, "twice"),
            (
                r#"{"op":"framework","id":"f","roles":["/a"]}"#,
                "starts with '/'",
            ),
            (
                r#"{"op":"framework","id":"f","capabilities":["FLY"]}"#,
                "FLY",
            ),
            (r#"{"op":"weight","role":"a","weight":0}"#, "0.000001"),
            (r#"{"op":"weight","role":"a","weight":-3}"#, "0.000001"),
            (r#"{"op":"weight","role":"a","weight":1e18}"#, "0.000001"),
            (r#"{"op":"quota","role":"*","guarantees":{}}"#, "'*'"),
            (
                r#"{"op":"quota","role":"a","guarantees":{"cpus":-1}}"#,
                "at least 0",
            ),
            (
                r#"{"op":"quota","role":"a","guarantees":{"cpus":2},"limits":{"cpus":1}}"#,
                "limit",
            ),
            (
                r#"{"op":"quota","role":"a","guarantees":{"ports":"[1-2]"}}"#,
                "a number",
            ),
            (r#"{"op":"cycle","advance_s":-1}"#, "advance_s"),
            (r#"{"op":"cycle","advance_s":1e18}"#, "advance_s"),
            (
                r#"{"op":"suppress","framework":"f","role":"a"}"#,
                "no framework \"f\"",
            ),
            (r#"{"op":"remove_agent","id":"a"}"#, "no agent \"a\""),
            (
                r#"{"op":"decline","agent":"a","framework":"f","role":"r"}"#,
                "no agent \"a\"",
            ),
            (
                &format!(r#"{{"op":"agent","id":"a","resources":{{"ports":"[{ranges}]"}}}}"#),
                "more than 10000 ranges",
            ),
            (
                &format!(r#"{{"op":"framework","id":"f","roles":["{deep}/"]}}"#),
                "ends with",
            ),
        ] {
            let answers = answers(&[line, r#"{"op":"cycle"}"#]);
            assert_eq!(answers.len(), 2, "{line}: {answers:?}");
            let shown: String = line.chars().take(200).collect();
            assert!(
                answers[0].starts_with("{\"error\":"),
                "{shown}: {}",
                answers[0]
            );
            let unquoted = answers[0].replace("\\\"", "\"");
            assert!(unquoted.contains(says), "{shown}: {}", answers[0]);
            assert!(answers[0].ends_with(",\"line\":1}"), "{}", answers[0]);
            assert_eq!(answers[1], r#"{"cycle":1,"allotments":[]}"#);
        }
    }

    #[test]
    fn roles_500_deep_and_thousands_of_ranges_work() {
        let deep = vec!["r"; 500].join("/");
        let ranges: Vec<String> = (0..5_000).map(|it| format!("{0}-{0}", it * 2)).collect();
        let ranges = ranges.join(",");
        let answers = answers(&[
            &format!(r#"{{"op":"framework","id":"f","roles":["{deep}"]}}"#),
            &format!(r#"{{"op":"weight","role":"{deep}","weight":2.5}}"#),
            &format!(r#"{{"op":"agent","id":"a","resources":{{"cpus":1,"ports":"[{ranges}]"}}}}"#),
            r#"{"op":"cycle"}"#,
        ]);
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert!(
            answers[0].contains("\"cpus\":1,\"ports\":\"[0-0,2-2,"),
            "{}",
            answers[0]
        );
    }

    #[test]
    fn quotas_within_each_other_must_fit() {
        let answers = answers(&[
            r#"{"op":"quota","role":"a","guarantees":{"cpus":4},"limits":{"cpus":8}}"#,
            r#"{"op":"quota","role":"a/b","guarantees":{"cpus":3}}"#,
            r#"{"op":"quota","role":"a/c","guarantees":{"cpus":2}}"#,
            r#"{"op":"quota","role":"a/c","limits":{"cpus":9}}"#,
            r#"{"op":"quota","role":"a","guarantees":{"cpus":2}}"#,
            r#"{"op":"quota","role":"a/b"}"#,
            r#"{"op":"quota","role":"a","guarantees":{"cpus":2}}"#,
        ]);
        assert_eq!(answers.len(), 3, "{answers:?}");
        for (answer, line) in answers.iter().zip([3, 4, 5]) {
            let end = format!(",\"line\":{line}}}");
            assert!(answer.ends_with(&end), "{answer}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_refused_and_skipped() {
        let long = "x".repeat(MAX_LINE as usize + 10);
        let answers = answers(&[&long, r#"{"op":"cycle"}"#]);
        assert!(answers[0].contains("more than"), "{}", answers[0]);
        assert_eq!(answers[1], r#"{"cycle":1,"allotments":[]}"#);
    }

    /// Lines of which about half are bad in one way or another.
    fn any_line() -> impl Strategy<Value = String> {
        let agent = select(vec!["a1", "a2", "a3", "a/4"]);
        let framework = select(vec!["f1", "f2", "f3", ""]);
        let role = select(vec!["x", "y", "y/z", "*", "-"]);
        let amount = select(vec![
            "0",
            "1",
            "2.5",
            "4",
            "-1",
            "1e18",
            "\"[1-3]\"",
            "null",
        ]);
        let operation = 0..13_u8;
        (operation, agent, framework, role, amount).prop_map(
            |(operation, agent, framework, role, amount)| {
                let both = format!(r#""agent":"{agent}","framework":"{framework}","role":"{role}""#);
                let part = format!(r#""resources":{{"cpus":{amount}}}"#);
                match operation {
                    0 | 1 => format!(
                        r#"{{"op":"agent","id":"{agent}","resources":{{"cpus":{amount},"mem":64}}}}"#
                    ),
                    2 => format!(r#"{{"op":"remove_agent","id":"{agent}"}}"#),
                    3 | 4 => format!(r#"{{"op":"framework","id":"{framework}","roles":["{role}"]}}"#),
                    5 => format!(r#"{{"op":"remove_framework","id":"{framework}"}}"#),
                    6 => format!(r#"{{"op":"weight","role":"{role}","weight":{amount}}}"#),
                    7 => format!(
                        r#"{{"op":"quota","role":"{role}","guarantees":{{"cpus":{amount}}},"limits":{{"cpus":4}}}}"#
                    ),
                    8 => format!(r#"{{"op":"use",{both},{part}}}"#),
                    9 => format!(r#"{{"op":"decline",{both},"refuse_s":{amount}}}"#),
                    10 => format!(r#"{{"op":"release",{both},{part}}}"#),
                    11 => format!(
                        r#"{{"op":"suppress","framework":"{framework}","role":"{role}"}}"#
                    ),
                    _ => r#"{"op":"cycle","advance_s":1}"#.to_owned(),
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn a_bad_line_changes_nothing(
            lines in proptest::collection::vec(
                prop_oneof![2 => any_line(), 1 => Just(r#"{"op":"cycle"}"#.to_owned())], 1..60
            )
        ) {
            let answers = run(&lines);
            let (errors, cycles): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|it| it.starts_with("{\"error\""));
            let number = |it: &String| -> usize {
                let rest = it.rsplit(':').next().unwrap();
                rest.trim_end_matches('}').parse().unwrap()
            };
            let bad: Vec<usize> = errors.iter().map(number).collect();
            let good = lines.iter().zip(1..).filter(|(_, at)| !bad.contains(at));
            let good: Vec<String> = good.map(|(it, _)| it.clone()).collect();
            prop_assert_eq!(run(&good), cycles);
        }
    }
}
