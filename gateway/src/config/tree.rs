//! Ways through a TOML tree.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeValue},
};

/// A step from a value to one inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Item(usize),
}

/// The way to the key or value that has this span; the innermost, where several have.
pub(super) fn path_to(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    children(value)
        .find_map(|(step, key, child)| {
            if key.as_ref() == Some(span) {
                return Some(vec![step]);
            }
            let mut path = path_to(child, span)?;
            path.insert(0, step);
            Some(path)
        })
        .or_else(|| (value.span() == *span).then(Vec::new))
}

/// The value at the end of a path.
pub(super) fn value_at<'v, 't>(
    value: &'v Spanned<DeValue<'t>>,
    path: &[Step],
) -> Option<&'v Spanned<DeValue<'t>>> {
    match path.split_first() {
        None => Some(value),
        Some((first, rest)) => {
            let (_, _, child) = children(value).find(|(step, _, _)| step == first)?;
            value_at(child, rest)
        }
    }
}

/// The values inside a value: how to get there, the span of the key, the value.
pub(super) fn children<'v, 't>(
    value: &'v Spanned<DeValue<'t>>,
) -> impl Iterator<Item = (Step, Option<Range<usize>>, &'v Spanned<DeValue<'t>>)> {
    let table = value.get_ref().as_table().into_iter().flat_map(|table| {
        table
            .iter()
            .map(|(key, value)| (Step::Key(key.get_ref().clone().into_owned()), Some(key.span()), value))
    });
    let array = value
        .get_ref()
        .as_array()
        .into_iter()
        .flat_map(|items| items.iter().enumerate().map(|(index, item)| (Step::Item(index), None, item)));
    table.chain(array)
}

/// The same, to be changed.
pub(super) fn children_mut<'v, 't>(
    value: &'v mut Spanned<DeValue<'t>>,
) -> Vec<(Step, &'v mut Spanned<DeValue<'t>>)> {
    match value.get_mut() {
        DeValue::Table(table) => table
            .iter_mut()
            .map(|(key, value)| (Step::Key(key.get_ref().clone().into_owned()), value))
            .collect(),
        DeValue::Array(items) => {
            items.iter_mut().enumerate().map(|(index, item)| (Step::Item(index), item)).collect()
        }
        _ => Vec::new(),
    }
}

/// Takes out what is at the end of a path.
pub(super) fn remove(value: &mut Spanned<DeValue<'_>>, path: &[Step]) {
    match (path, value.get_mut()) {
        ([Step::Key(key)], DeValue::Table(table)) => {
            table.remove(key.as_str());
        }
        ([Step::Item(index)], DeValue::Array(items)) => {
            let old = std::mem::replace(items, DeArray::new()).into_iter().enumerate();
            *items = old.filter(|(at, _)| at != index).map(|(_, item)| item).collect();
        }
        ([Step::Key(key), rest @ ..], DeValue::Table(table)) => {
            if let Some(child) = table.get_mut(key.as_str()) {
                remove(child, rest);
            }
        }
        ([Step::Item(index), rest @ ..], DeValue::Array(items)) => {
            if let Some(child) = items.get_mut(*index) {
                remove(child, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    const TEXT: &str = "a = [1, { b = 2, c.d = 3 }]\n[t]\nx = [4, 5]\n";

    fn tree() -> Spanned<DeValue<'static>> {
        let table = DeTable::parse(TEXT).expect("TOML");
        Spanned::new(0..TEXT.len(), DeValue::Table(table.into_inner()))
    }

    fn path(of: &str) -> Vec<Step> {
        of.split('.')
            .map(|step| step.parse().map(Step::Item).unwrap_or_else(|_| Step::Key(step.to_owned())))
            .collect()
    }

    #[test]
    fn finds_keys_and_values_by_their_place() {
        let tree = tree();
        for (needle, expected) in
            [("b", "a.1.b"), ("2", "a.1.b"), ("d", "a.1.c.d"), ("3", "a.1.c.d"), ("5", "t.x.1")]
        {
            let start = TEXT.find(needle).expect("it is there");
            let found = path_to(&tree, &(start..start + 1));
            assert_eq!(found, Some(path(expected)), "for {needle}");
        }
        assert_eq!(path_to(&tree, &(0..TEXT.len())), Some(vec![]));
        assert_eq!(path_to(&tree, &(90..91)), None);
    }

    #[test]
    fn takes_out_keys_and_items() {
        let mut tree = tree();
        for gone in ["a.1.c.d", "a.0", "t.x.0", "t.nothing", "nothing.0"] {
            remove(&mut tree, &path(gone));
        }
        assert!(value_at(&tree, &path("a.0.b")).is_some(), "the second item is the first now");
        assert!(value_at(&tree, &path("a.0.c.d")).is_none());
        assert_eq!(value_at(&tree, &path("t.x.0")).map(Spanned::span), Some(40..41));
    }
}
