//! What the command line says.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};
use tepui_sim::generate::Size;

/// How it is used.
pub(crate) const USAGE: &str = "\
tepui-sim run [SEED | FIRST..LAST] [--minutes M] [--jobs N] [--large] [--no-shrink] [--first]
              [--verbose]
    Runs plans of seeds, random ones unless said otherwise; for each that fails prints the
    shortest history that was found and how to replay it. --first stops at the first
    failure.
tepui-sim replay SEED [--large] [--keep 1,2,... | none] [--length SECONDS | NANOSECONDSns]
                      [--calm] [--thorough] [--quiet]
    Runs one plan, or some parts of it, and prints everything that happens.
tepui-sim mutations [NAME TREE]
    Lists the mutations, or plants one of them in the sources below TREE.
tepui-sim scenarios [NAME] [SEED | FIRST..LAST] [--trace]
    Runs the named scenarios, or one of them.";

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Run,
    Replay,
    Scenarios,
    Mutations,
    Help,
}

/// Everything that was said.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) name: Option<String>,
    pub(crate) tree: Option<PathBuf>,
    /// Empty when none was named.
    pub(crate) seeds: RangeInclusive<u64>,
    pub(crate) minutes: Option<Duration>,
    pub(crate) jobs: usize,
    pub(crate) size: Size,
    pub(crate) no_shrink: bool,
    pub(crate) first: bool,
    pub(crate) verbose: bool,
    pub(crate) keep: Option<Vec<usize>>,
    pub(crate) length: Option<u64>,
    pub(crate) calm: bool,
    pub(crate) thorough: bool,
    pub(crate) quiet: bool,
    pub(crate) trace: bool,
}

impl Arguments {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let command = match words.next().as_deref() {
            Some("run") => Command::Run,
            Some("replay") => Command::Replay,
            Some("scenarios") => Command::Scenarios,
            Some("mutations") => Command::Mutations,
            None | Some("help" | "--help") => Command::Help,
            Some(other) => return Err(format!("there is no command {other:?}")),
        };
        #[allow(clippy::reversed_empty_ranges)] // no seed was named
        let mut arguments = Arguments {
            command,
            name: None,
            tree: None,
            seeds: 1..=0,
            minutes: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            size: Size::Small,
            no_shrink: false,
            first: false,
            verbose: false,
            keep: None,
            length: None,
            calm: false,
            thorough: false,
            quiet: false,
            trace: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--minutes" => {
                    let minutes: f64 = number("--minutes", &value()?)?;
                    arguments.minutes = Some(Duration::from_secs_f64(minutes * 60.0));
                }
                "--jobs" => arguments.jobs = number("--jobs", &value()?)?,
                "--large" => arguments.size = Size::Large,
                "--no-shrink" => arguments.no_shrink = true,
                "--first" => arguments.first = true,
                "--verbose" => arguments.verbose = true,
                "--keep" => {
                    let text = value()?;
                    let numbers = text.split(',').filter(|it| *it != "none");
                    let numbers = numbers.map(|it| number("--keep", it));
                    arguments.keep = Some(numbers.collect::<Result<_, _>>()?);
                }
                "--length" => {
                    let text = value()?;
                    arguments.length = Some(match text.strip_suffix("ns") {
                        Some(nanos) => number("--length", nanos)?,
                        None => (number::<f64>("--length", &text)? * 1e9) as u64,
                    });
                }
                "--calm" => arguments.calm = true,
                "--thorough" => arguments.thorough = true,
                "--quiet" => arguments.quiet = true,
                "--trace" => arguments.trace = true,
                flag if flag.starts_with('-') => return Err(format!("there is no flag {flag}")),
                plain => arguments.plain(plain)?,
            }
        }
        Ok(arguments)
    }

    fn plain(&mut self, text: &str) -> Result<(), String> {
        if self.command == Command::Mutations {
            match self.name {
                None => self.name = Some(text.to_owned()),
                Some(_) => self.tree = Some(text.into()),
            }
        } else if let Some((first, last)) = text.split_once("..") {
            self.seeds = number("seed", first)?..=number("seed", last)?;
        } else if text.starts_with(|it: char| it.is_ascii_digit()) {
            let seed = number("seed", text)?;
            self.seeds = seed..=seed;
        } else if self.command == Command::Scenarios {
            self.name = Some(text.to_owned());
        } else {
            return Err(format!("{text:?} is no seed"));
        }
        Ok(())
    }

    /// As the command line says the size.
    pub(crate) fn size_flag(&self) -> &'static str {
        match self.size {
            Size::Small => "",
            Size::Large => " --large",
        }
    }
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{what}: {text:?} is no number"))
}
