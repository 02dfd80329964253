//! Where an authority finds proofs: on this gateway's own listeners.

use super::store::Store;
use crate::{
    acme::{Proof, Stage, Tokens},
    snapshot::{Ordered, write_private},
    tls::Issued,
};
use std::{fs, io::ErrorKind};

/// Where an authority finds proofs, and where its account is kept.
pub(super) struct Backstage<'a> {
    store: Store<'a>,
    issued: &'a Issued,
    tokens: &'a Tokens,
}

impl<'a> Backstage<'a> {
    pub(super) fn new(ordered: &'a Ordered, issued: &'a Issued, tokens: &'a Tokens) -> Self {
        Self { store: Store::of(ordered), issued, tokens }
    }
}

impl Stage for Backstage<'_> {
    fn account(&self) -> Result<Option<String>, String> {
        let path = self.store.account();
        match fs::read_to_string(&path) {
            Ok(account) => Ok(Some(account)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("the account in {} cannot be read: {error}", path.display())),
        }
    }

    fn keep_account(&self, account: Option<&str>) -> Result<(), String> {
        let path = self.store.account();
        let kept = match account {
            Some(account) => write_private(&path, account),
            None => fs::remove_file(&path).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        kept.map_err(|error| format!("the account cannot be kept in {}: {error}", path.display()))
    }

    fn show(&self, proof: &Proof) -> Result<(), String> {
        match proof {
            Proof::File { token, content } => self.tokens.put(token, content),
            Proof::Certificate { name, digest } => {
                self.issued.show_proof(name, digest).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn hide(&self, proof: &Proof) {
        match proof {
            Proof::File { token, .. } => self.tokens.remove(token),
            Proof::Certificate { name, .. } => self.issued.hide_proof(name),
        }
    }
}
