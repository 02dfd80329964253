//! `bench/instructions.toml`: what was accepted.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use crate::{Result, tree};

/// More than this, in percent of what was accepted, is too much. The same build counts the same to a
/// thousandth; another version of the compiler does not.
const SLACK: u64 = 5;

const HEAD: &str = "\
# Instructions that one request takes in the gateway, in user space, as `cargo xtask instructions` counts them
# and .ci/run compares them: not more than 5 % over these. To accept a change: `cargo xtask instructions --accept`.
#
# Counted in a build without link-time optimisation and with the debug assertions of dependencies: good to see a
# change, not to say what a request costs. docs/performance.md says that.
";

pub(crate) struct Budgets(BTreeMap<String, u64>);

/// What to think of a count.
pub(crate) enum Verdict {
    New,
    Known { accepted: u64, count: u64 },
}

impl Budgets {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(file()).unwrap_or_default();
        let mut budgets = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, count) =
                line.split_once(" = ").ok_or_else(|| format!("{}: {line}", file().display()))?;
            budgets.insert(name.to_owned(), count.parse()?);
        }
        Ok(Self(budgets))
    }

    pub(crate) fn judge(&self, name: &str, count: u64) -> Verdict {
        match self.0.get(name) {
            Some(accepted) => Verdict::Known { accepted: *accepted, count },
            None => Verdict::New,
        }
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.0.insert(name.to_owned(), count);
    }

    pub(crate) fn write(&self) -> Result {
        let lines = self.0.iter().map(|(name, count)| format!("{name} = {count}\n"));
        Ok(fs::write(file(), HEAD.to_owned() + &lines.collect::<String>())?)
    }
}

impl Verdict {
    pub(crate) fn is_over(&self) -> bool {
        match self {
            Self::New => true,
            Self::Known { accepted, count } => 100 * count > (100 + SLACK) * accepted,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("nothing was accepted before"),
            Self::Known { accepted, count } => {
                let percent = 100.0 * (*count as f64 / *accepted as f64 - 1.0);
                write!(f, "{accepted} were accepted: {percent:+.1} %")?;
                if self.is_over() {
                    write!(f, ", more than {SLACK} % over")?;
                } else if 100 * count < (100 - SLACK) * accepted {
                    f.write_str(", worth accepting")?;
                }
                Ok(())
            }
        }
    }
}

fn file() -> PathBuf {
    tree::root().join("bench/instructions.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_slack_is_too_much() {
        let budgets = Budgets(BTreeMap::from([("a".to_owned(), 1000)]));
        for (count, expected) in [(1, false), (1000, false), (1050, false), (1051, true)] {
            assert_eq!(budgets.judge("a", count).is_over(), expected, "{count}");
        }
        assert!(budgets.judge("b", 1).is_over(), "what nobody accepted");
    }
}
