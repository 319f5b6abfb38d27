//! Bugs to be planted one at a time, so that the simulator can show that it finds them.
//!
//! A mutation is a file in `sim/mutations`: what the bug is, the source that has it, and a text of
//! that source, which must stand there exactly once, with the text that takes its place.

use std::path::{Path, PathBuf};

/// A bug that is not there.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) what: String,
    file: String,
    find: String,
    replace: String,
}

impl Mutation {
    fn parse(name: &str, text: &str) -> Option<Mutation> {
        let (head, rest) = text.split_once("\n<<<<\n")?;
        let (what, file) = head.split_once('\n')?;
        let (find, rest) = rest.split_once("\n====\n")?;
        let replace = rest
            .strip_suffix("\n>>>>\n")
            .or(rest.strip_suffix(">>>>\n"))?;
        Some(Mutation {
            name: name.to_owned(),
            what: what.to_owned(),
            file: file.to_owned(),
            find: find.to_owned(),
            replace: replace.to_owned(),
        })
    }

    /// The source with the bug in it.
    ///
    /// # Errors
    /// Its text does not stand there exactly once.
    pub(crate) fn plant(&self, tree: &Path) -> Result<(PathBuf, String), String> {
        let path = tree.join(&self.file);
        let source = std::fs::read_to_string(&path)
            .map_err(|it| format!("{}: {}: {it}", self.name, path.display()))?;
        match source.matches(&self.find).count() {
            1 => Ok((path, source.replacen(&self.find, &self.replace, 1))),
            count => Err(format!(
                "{}: its text stands {count} times in {}",
                self.name, self.file
            )),
        }
    }
}

/// All of them, by name.
///
/// # Errors
/// One cannot be read.
pub(crate) fn all() -> Result<Vec<Mutation>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutations");
    let entries = std::fs::read_dir(&folder).map_err(|it| it.to_string())?;
    let mut mutations = Vec::new();
    for entry in entries {
        let path = entry.map_err(|it| it.to_string())?.path();
        let text = std::fs::read_to_string(&path).map_err(|it| it.to_string())?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let mutation = Mutation::parse(&name, &text);
        mutations.push(mutation.ok_or(format!("{} is no mutation", path.display()))?);
    }
    mutations.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(mutations)
}

/// Lists them, or plants one. True when that failed.
#[allow(dead_code)] // the test of the mutations only reads them
pub(crate) fn run(name: Option<&str>, tree: Option<&Path>) -> bool {
    let outcome = all().and_then(|all| match (name, tree) {
        (Some(name), Some(tree)) => {
            let found = all.iter().find(|it| it.name == name);
            let (path, source) = found.ok_or("there is no such mutation")?.plant(tree)?;
            std::fs::write(&path, source).map_err(|it| it.to_string())
        }
        _ => {
            for it in all {
                println!("{} | {}", it.name, it.what);
            }
            Ok(())
        }
    });
    if let Err(text) = &outcome {
        eprintln!("{text}");
    }
    outcome.is_err()
}
