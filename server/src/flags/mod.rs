//! Flags by table, with Mesos' names and ways.
//!
//! A binary has one table of [`Flag`]s. Values come, in rising order of precedence, from the
//! default, a folder with a file per flag, `MESOS_<NAME>`, `TEPUI_<NAME>` and the command
//! line; `--name=value`, `--name value`, `--name` and `--no-name` are taken as Mesos takes
//! them. A value `file://path` is replaced by the file's content, except of flags that are
//! paths. Nothing outside this module reads the environment.

pub mod value;

use crate::zookeeper::Url;
use clap::{Arg, ArgAction, Command, builder::StyledStr};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file's path: never replaced by the file's content.
    Path,
    /// `true` or `false`; bare means true.
    Bool,
    /// A number without sign.
    Number,
    /// A number with a fraction.
    Fraction,
    /// Such as `15secs`.
    Duration,
    /// Such as `2GB`.
    Size,
}

/// One row of a table of flags.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// As on the command line, without dashes.
    pub name: &'static str,
    /// Name in older versions of Mesos, still taken.
    pub alias: Option<&'static str>,
    /// Type of the value.
    pub kind: Kind,
    /// Value when nothing is given.
    pub default: Option<&'static str>,
    /// One sentence for `--help`.
    pub help: &'static str,
}

impl Flag {
    /// A row without alias.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: Option<&'static str>,
        help: &'static str,
    ) -> Flag {
        Flag {
            name,
            alias: None,
            kind,
            default,
            help,
        }
    }

    /// The row with an older name.
    #[must_use]
    pub const fn alias(mut self, alias: &'static str) -> Flag {
        self.alias = Some(alias);
        self
    }
}

/// A flag of Mesos that is refused, and what to do instead.
pub type Refused = (&'static str, &'static str);

/// Everything that a binary knows about its flags.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name of the binary.
    pub binary: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// The flags.
    pub flags: &'static [Flag],
    /// Flags of Mesos that do not exist here, with advice.
    pub refused: &'static [Refused],
}

/// Why flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an error: the text that `--help` or `--version` prints.
    #[error("{0}")]
    Print(StyledStr),
    /// A flag that does not exist; names the nearest one.
    #[error("there is no flag --{name}{}", nearest.as_ref().map(|it| format!("; did you mean --{it}?")).unwrap_or_default())]
    Unknown {
        /// As given.
        name: String,
        /// The most similar one that exists.
        nearest: Option<&'static str>,
    },
    /// A flag of Mesos that does not exist here.
    #[error("--{name} is not taken: {advice}")]
    Refused {
        /// As given.
        name: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// The same flag twice.
    #[error("--{0} is given twice")]
    Twice(&'static str),
    /// A value that is missing or does not fit.
    #[error("--{name}: {problem}")]
    Value {
        /// The flag.
        name: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A word that is no flag.
    #[error("{0:?} is not a flag: flags look like --name=value")]
    NotAFlag(String),
    /// A flag without which the binary cannot start.
    #[error("--{0} is required")]
    Required(&'static str),
}

/// Values by name; every one has been checked against its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
}

impl Table {
    /// Reads the flags. `arguments` without the program's name; `environment` as pairs;
    /// `folder` holds a file per flag and may be missing.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read<A: Into<String>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        environment: impl IntoIterator<Item = (String, String)>,
        folder: Option<&Path>,
    ) -> Result<Flags, Error> {
        let mut values: BTreeMap<&'static str, String> = BTreeMap::new();
        for flag in self.flags {
            if let Some(default) = flag.default {
                values.insert(flag.name, default.to_owned());
            }
        }
        if let Some(folder) = folder {
            self.read_folder(folder, &mut values)?;
        }
        self.read_environment(environment, &mut values)?;
        self.read_arguments(arguments, &mut values)?;
        Ok(Flags { values })
    }

    fn find(&self, name: &str) -> Option<&'static Flag> {
        let name = name.to_ascii_lowercase();
        self.flags
            .iter()
            .find(|flag| flag.name == name || flag.alias == Some(name.as_str()))
    }

    fn put(
        &self,
        flag: &'static Flag,
        raw: &str,
        values: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        let wrong = |problem: String| Error::Value {
            name: flag.name,
            problem,
        };
        let value = match raw.strip_prefix("file://") {
            Some(path) if flag.kind != Kind::Path => std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("{path} cannot be read: {error}")))?
                .trim_end_matches('\n')
                .to_owned(),
            Some(path) => path.to_owned(),
            None => raw.to_owned(),
        };
        check(flag.kind, &value).map_err(wrong)?;
        values.insert(flag.name, value);
        Ok(())
    }

    fn read_folder(
        &self,
        folder: &Path,
        values: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        // A folder that is not there says nothing.
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (name, value) = match name.strip_prefix('?') {
                // A switch: the name of the file says it all.
                Some(switch) => match switch.strip_prefix("no-") {
                    Some(name) => (name.to_owned(), "false".to_owned()),
                    None => (switch.to_owned(), "true".to_owned()),
                },
                None => match std::fs::read_to_string(entry.path()) {
                    Ok(content) => (name, content.trim_end_matches('\n').to_owned()),
                    Err(_) => continue,
                },
            };
            let flag = self.find(&name).ok_or_else(|| self.unknown(&name))?;
            self.put(flag, &value, values)?;
        }
        Ok(())
    }

    fn read_environment(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
        values: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        let mut found: Vec<(u8, &'static Flag, String)> = Vec::new();
        for (name, value) in environment {
            let upper = name.to_ascii_uppercase();
            let (rank, rest) = if let Some(rest) = upper.strip_prefix("TEPUI_") {
                (1, rest)
            } else if let Some(rest) = upper.strip_prefix("MESOS_") {
                (0, rest)
            } else {
                continue;
            };
            // Variables that are no flags belong to somebody else.
            if let Some(flag) = self.find(rest) {
                found.push((rank, flag, value));
            } else if let Some(flag) = rest.strip_prefix("NO-").and_then(|it| self.find(it))
                && flag.kind == Kind::Bool
            {
                found.push((rank, flag, "false".to_owned()));
            }
        }
        found.sort_by_key(|(rank, ..)| *rank);
        for (_, flag, value) in found {
            self.put(flag, &value, values)?;
        }
        Ok(())
    }

    fn read_arguments<A: Into<String>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        values: &mut BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        let mut seen: Vec<&'static str> = Vec::new();
        let mut arguments = arguments.into_iter().map(Into::into).peekable();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                break;
            }
            let Some(body) = argument.strip_prefix("--") else {
                return match argument.as_str() {
                    "-h" => Err(self.help()),
                    "-V" => Err(self.version()),
                    _ => Err(Error::NotAFlag(argument)),
                };
            };
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            match name {
                "help" => return Err(self.help()),
                "version" => return Err(self.version()),
                _ => {}
            }
            let (flag, value) = match (self.find(name), value) {
                (Some(flag), Some(value)) => (flag, value),
                (Some(flag), None) if flag.kind == Kind::Bool => (flag, "true".to_owned()),
                (Some(flag), None) => {
                    let value = arguments.next_if(|next| !next.starts_with("--"));
                    let value = value.ok_or(Error::Value {
                        name: flag.name,
                        problem: "needs a value, as in --name=value".to_owned(),
                    })?;
                    (flag, value)
                }
                (None, value) => {
                    let negated = name.strip_prefix("no-").and_then(|it| self.find(it));
                    match (negated, value) {
                        (Some(flag), None) if flag.kind == Kind::Bool => (flag, "false".to_owned()),
                        (Some(flag), _) => {
                            return Err(Error::Value {
                                name: flag.name,
                                problem: format!("--{name} is only for switches, without a value"),
                            });
                        }
                        (None, _) => return Err(self.unknown(name)),
                    }
                }
            };
            if seen.contains(&flag.name) {
                return Err(Error::Twice(flag.name));
            }
            seen.push(flag.name);
            self.put(flag, &value, values)?;
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        let plain = name.strip_prefix("no-").unwrap_or(name);
        if let Some((_, advice)) = self.refused.iter().find(|(refused, _)| *refused == plain) {
            return Error::Refused {
                name: name.to_owned(),
                advice,
            };
        }
        let nearest = self
            .flags
            .iter()
            .map(|flag| (distance(plain, flag.name), flag.name))
            .min()
            .filter(|(distance, _)| *distance <= plain.len().max(4) / 2)
            .map(|(_, name)| name);
        Error::Unknown {
            name: name.to_owned(),
            nearest,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.binary)
            .about(self.about)
            .version(env!("CARGO_PKG_VERSION"))
            .disable_help_flag(false)
            .override_usage(format!("{} [--flag=value ...]", self.binary))
            .after_help(
                "Every flag may also be given as TEPUI_<NAME> or MESOS_<NAME> in the environment; \
                 a value file://PATH is read from that file.",
            );
        for flag in self.flags {
            let mut argument = Arg::new(flag.name).long(flag.name).help(flag.help);
            argument = match flag.kind {
                Kind::Bool => argument.action(ArgAction::SetTrue),
                _ => argument.value_name("VALUE"),
            };
            if let Some(default) = flag.default {
                argument = argument.help(format!("{} [default: {default}]", flag.help));
            }
            command = command.arg(argument);
        }
        command
    }

    fn help(&self) -> Error {
        Error::Print(self.command().render_help())
    }

    fn version(&self) -> Error {
        Error::Print(self.command().render_version().into())
    }
}

fn check(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Text | Kind::Path => Ok(()),
        Kind::Bool => parse_bool(value).map(drop),
        Kind::Number => value
            .parse::<u64>()
            .map(drop)
            .map_err(|_| format!("{value:?} is not a whole number")),
        Kind::Fraction => value
            .parse::<f64>()
            .map(drop)
            .map_err(|_| format!("{value:?} is not a number")),
        Kind::Duration => value::parse_duration(value).map(drop),
        Kind::Size => value::parse_size(value).map(drop),
    }
}

fn parse_bool(value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// Edits between two names, for "did you mean".
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[other.len()]
}

impl Flags {
    /// The text of a flag that has a value.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The text of a flag without which the binary cannot start.
    ///
    /// # Errors
    /// It has none.
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.text(name).ok_or(Error::Required(name))
    }

    /// A switch; false when it has no value.
    pub fn bool(&self, name: &str) -> bool {
        self.text(name).is_some_and(|it| parse_bool(it) == Ok(true))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// A number with a fraction.
    pub fn fraction(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        value::parse_duration(self.text(name)?).ok()
    }

    /// A size in bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        value::parse_size(self.text(name)?).ok()
    }

    /// Every flag that has a value, as `/flags` shows it: passwords in `zk://` left out.
    pub fn rendered(&self) -> BTreeMap<String, String> {
        let shown = |value: &String| match value.starts_with("zk://") {
            true => Url::parse(value).map_or("zk://***".to_owned(), |it| it.to_string()),
            false => value.clone(),
        };
        self.values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), shown(value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table {
        binary: "test",
        about: "A test.",
        flags: &[
            Flag::new("port", Kind::Number, Some("5050"), "Port."),
            Flag::new(
                "agent_ping_timeout",
                Kind::Duration,
                Some("15secs"),
                "Ping.",
            )
            .alias("slave_ping_timeout"),
            Flag::new("root_submissions", Kind::Bool, Some("true"), "Root."),
            Flag::new("credentials", Kind::Path, None, "File."),
            Flag::new("cluster", Kind::Text, None, "Name."),
        ],
        refused: &[("zk", "masters need no ZooKeeper")],
    };

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, String> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TABLE
            .read(arguments.iter().copied(), environment, None)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn forms_of_flags() {
        let flags = read(
            &["--port=1", "--no-root_submissions", "--cluster", "x y"],
            &[],
        )
        .unwrap();
        assert_eq!(flags.number("port"), Some(1));
        assert!(!flags.bool("root_submissions"));
        assert_eq!(flags.text("cluster"), Some("x y"));
        assert_eq!(
            flags.duration("agent_ping_timeout"),
            Some(Duration::from_secs(15))
        );
        let aliased = read(&["--slave_ping_timeout=1mins"], &[]).unwrap();
        assert_eq!(aliased.text("agent_ping_timeout"), Some("1mins"));
    }

    #[test]
    fn precedence() {
        let both = [
            ("MESOS_PORT", "1"),
            ("TEPUI_PORT", "2"),
            ("MESOS_WHATEVER", "x"),
        ];
        assert_eq!(read(&[], &both[..1]).unwrap().number("port"), Some(1));
        assert_eq!(read(&[], &both).unwrap().number("port"), Some(2));
        assert_eq!(read(&["--port=3"], &both).unwrap().number("port"), Some(3));
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (arguments, text) in [
            (
                &["--prot=1"][..],
                "there is no flag --prot; did you mean --port?",
            ),
            (
                &["--zk=zk://x"],
                "--zk is not taken: masters need no ZooKeeper",
            ),
            (&["--port=1", "--port=2"], "--port is given twice"),
            (&["--port"], "--port: needs a value, as in --name=value"),
            (&["--port=x"], "--port: \"x\" is not a whole number"),
            (
                &["--no-port"],
                "--port: --no-port is only for switches, without a value",
            ),
            (
                &["port"],
                "\"port\" is not a flag: flags look like --name=value",
            ),
        ] {
            assert_eq!(read(arguments, &[]), Err(text.to_owned()));
        }
    }

    #[test]
    fn values_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("value");
        std::fs::write(&file, "from a file\n").unwrap();
        let url = format!("file://{}", file.display());
        let flags = read(
            &[&format!("--cluster={url}"), &format!("--credentials={url}")],
            &[],
        )
        .unwrap();
        assert_eq!(flags.text("cluster"), Some("from a file"));
        assert_eq!(flags.text("credentials"), file.to_str());

        std::fs::remove_file(file).unwrap();
        std::fs::write(folder.path().join("port"), "77\n").unwrap();
        std::fs::write(folder.path().join("?no-root_submissions"), "").unwrap();
        let flags = TABLE
            .read(Vec::<String>::new(), [], Some(folder.path()))
            .unwrap();
        assert_eq!(flags.number("port"), Some(77));
        assert!(!flags.bool("root_submissions"));
    }
}
