//! Reads one table into its type and reports everything that is wrong with it, not just the first.
//!
//! Serde stops at an error. So the key at fault is reported and taken out of the tree, and the table
//! read again, until it can be read or nothing is left to take out.

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

use super::{
    describe::{Place, describe, meant, table_of},
    fault::Fault,
    report::Report,
    tree::{Step, children, children_mut, path_to, remove},
};

/// Reads a table. `None` if too much is wrong; whatever is wrong has been reported.
pub(super) fn read<T: DeserializeOwned>(
    place: &Place<'_>,
    mut value: Spanned<DeValue<'_>>,
    report: &mut Report,
) -> Option<T> {
    let mut gone = Vec::new();
    take_spoiled(&mut value, &mut Vec::new(), report, &mut gone);
    loop {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(table) => return Some(table),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(value.span());
        let path = path_to(&value, &span).unwrap_or_default();
        let fault = Fault::parse(error.message());
        if !follows_from(&fault, &path, &gone) {
            report.add(describe(place, &value, &fault, &path, span));
        }
        if path.is_empty() {
            return None;
        }
        remove(&mut value, &path);
        gone.push(Gone::new(place, path, &fault));
    }
}

/// Something taken out of a table.
struct Gone {
    path: Vec<Step>,
    /// For an unknown key: what it was meant to be.
    meant: Option<String>,
}

impl Gone {
    fn new(place: &Place<'_>, path: Vec<Step>, fault: &Fault<'_>) -> Self {
        let meant = match fault {
            Fault::UnknownKey { key, known } => meant(&table_of(place, &path), key, known),
            _ => None,
        };
        Self { meant: meant.map(str::to_owned), path }
    }
}

/// Takes out the values about which an earlier stage has said all there is to say.
fn take_spoiled(
    value: &mut Spanned<DeValue<'_>>,
    path: &mut Vec<Step>,
    report: &Report,
    gone: &mut Vec<Gone>,
) {
    let steps: Vec<Step> = children(value)
        .filter(|(_, _, child)| report.is_spoiled(&child.span()))
        .map(|(step, _, _)| step)
        .collect();
    // From the end, so that the items still to go keep their numbers.
    for step in steps.into_iter().rev() {
        let whole: Vec<Step> = path.iter().cloned().chain([step.clone()]).collect();
        remove(value, &[step]);
        gone.push(Gone { path: whole, meant: None });
    }
    for (step, child) in children_mut(value) {
        path.push(step);
        take_spoiled(child, path, report, gone);
        path.pop();
    }
}

/// Whether a fault is only the echo of one that was reported: a key that was taken out is missed, or a
/// table is not as it should be because of something taken out of it.
fn follows_from(fault: &Fault<'_>, path: &[Step], gone: &[Gone]) -> bool {
    match fault {
        Fault::MissingKey { key } => gone.iter().any(|gone| match gone.path.split_last() {
            Some((Step::Key(last), table)) => {
                table == path && (last == key || gone.meant.as_deref() == Some(key))
            }
            _ => false,
        }),
        _ => gone.iter().any(|gone| gone.path.len() > path.len() && gone.path.starts_with(path)),
    }
}
