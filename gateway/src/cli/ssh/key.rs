//! A VM's key: from the platform, kept in a file that nobody else can read.

use super::super::{chain, trust::Trust};
use super::place::{Folder, Vm};
use crate::snapshot::write_private;
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Deserialize;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The platform's API.
#[derive(Debug, Args)]
pub(super) struct Platform {
    /// Where the platform's API is, such as https://api.example.com/v1
    #[arg(long, value_name = "URL", env = "VERS_API_URL")]
    api: Option<String>,
    /// The key for it. It stands in the environment only: arguments are for everybody to see
    #[arg(skip = std::env::var("VERS_API_KEY").ok().filter(|key| !key.is_empty()))]
    api_key: Option<String>,
}

impl Platform {
    /// What must be said so that keys can be had.
    pub(super) fn missing(&self) -> String {
        let url = if self.api.is_none() { "--api URL, or VERS_API_URL; and " } else { "" };
        format!("there is no key for this VM; to get it from the platform: {url}VERS_API_KEY")
    }

    fn access(&self) -> Option<(&str, &str)> {
        Some((self.api.as_deref()?, self.api_key.as_deref()?))
    }
}

/// What the platform answers; it has the port of the VM's own sshd as well, which TLS does not need.
#[derive(Deserialize)]
struct SshKey {
    ssh_private_key: String,
}

/// A VM's key.
pub(super) enum Found {
    /// It was there.
    Kept(PathBuf),
    /// It was asked for just now.
    New(PathBuf),
}

impl Found {
    pub(super) fn file(&self) -> &Path {
        let (Self::Kept(file) | Self::New(file)) = self;
        file
    }
}

/// The keys of VMs.
pub(super) struct Keys<'a> {
    pub(super) folder: &'a Folder,
    pub(super) platform: &'a Platform,
    pub(super) trust: &'a Trust,
}

impl Keys<'_> {
    /// The VM's key; none where it is not there and the platform is not known: then ssh has keys of its
    /// own, or it has not.
    pub(super) fn find(&self, vm: &Vm) -> Result<Option<Found>, String> {
        let file = self.folder.key_of(&vm.host);
        if file.exists() {
            return Ok(Some(Found::Kept(file)));
        }
        let Some((api, api_key)) = self.platform.access() else { return Ok(None) };
        keep(&file, &self.fetch(api, api_key, vm)?)?;
        Ok(Some(Found::New(file)))
    }

    /// Another key than the one that is kept, where the platform has another one now.
    pub(super) fn renew(&self, vm: &Vm) -> Result<Option<PathBuf>, String> {
        let Some((api, api_key)) = self.platform.access() else { return Ok(None) };
        let file = self.folder.key_of(&vm.host);
        let key = self.fetch(api, api_key, vm)?;
        if fs::read(&file).is_ok_and(|kept| kept == key.as_bytes()) {
            return Ok(None);
        }
        keep(&file, &key)?;
        Ok(Some(file))
    }

    fn fetch(&self, api: &str, api_key: &str, vm: &Vm) -> Result<String, String> {
        let url = format!("{}/vm/{}/ssh_key", api.trim_end_matches('/'), vm.id);
        if !is_private(&url) {
            return Err(format!("{url}: keys would be sent in the clear; write `https://` in VERS_API_URL"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let key = runtime.block_on(async {
            tokio::time::timeout(DEADLINE, self.ask(&url, api_key))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {DEADLINE:?}")))
        });
        let mut key = key.map_err(|error| format!("{url}: {error}"))?;
        // OpenSSH takes no key without it.
        if !key.ends_with('\n') {
            key.push('\n');
        }
        Ok(key)
    }

    async fn ask(&self, url: &str, api_key: &str) -> Result<String, String> {
        let connector = self.trust.roots()?.connector(DEADLINE);
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let request = Request::get(url).header(header::AUTHORIZATION, format!("Bearer {api_key}"));
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let answer = client.request(request).await.map_err(|error| chain(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err("the platform does not know this VM".to_owned()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(format!("{status}: VERS_API_KEY is not the key for this VM's owner"));
            }
            status => return Err(status.to_string()),
        }
        let key: SshKey = serde_json::from_slice(&body)
            .map_err(|_| "the answer is not what it should be: {\"ssh_private_key\": …}".to_owned())?;
        Ok(key.ssh_private_key)
    }
}

/// Whether nobody on the way can read what is asked there: over TLS, or on this machine.
fn is_private(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return true };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    uri.scheme() != Some(&Scheme::HTTP) || is_here
}

/// For the whole request.
const DEADLINE: Duration = Duration::from_secs(20);

/// A key has a few kilobytes.
const MOST_BYTES: usize = 64 * 1024;

fn keep(file: &Path, key: &str) -> Result<(), String> {
    write_private(file, key).map_err(|error| format!("{}: {error}", file.display()))
}
