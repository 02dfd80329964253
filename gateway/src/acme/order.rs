//! One order, from the account to the certificate.

use super::{
    Challenge,
    transport::{Carried, Transport},
};
use instant_acme::{
    AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// How long an authority may take to look at all proofs, and then to make the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));

/// What an authority knows us by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Where its authority begins.
    pub directory: String,
    /// Whom it writes to.
    pub email: Option<String>,
}

/// A certificate that was ordered, both parts as PEM.
pub struct Obtained {
    /// The certificate, with those between it and its authority.
    pub chain: String,
    /// Its key.
    pub key: String,
}

/// What shows that a name is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A file on port 80.
    File {
        /// Its name.
        token: String,
        /// What it holds.
        content: String,
    },
    /// A certificate for this name, with this digest in it, for who asks for the protocol `acme-tls/1`.
    Certificate {
        /// The name.
        name: String,
        /// The digest.
        digest: [u8; 32],
    },
}

/// Where proofs are shown, and where the account is kept.
pub trait Stage {
    /// The account of the last time, as [`Self::keep_account`] got it.
    ///
    /// # Errors
    /// Fails in words where there may be one: an authority gives only so many.
    fn account(&self) -> Result<Option<String>, String>;

    /// Keeps the account; none where the authority does not know it any more.
    ///
    /// # Errors
    /// Fails in words.
    fn keep_account(&self, account: Option<&str>) -> Result<(), String>;

    /// Shows a proof.
    ///
    /// # Errors
    /// Fails in words.
    fn show(&self, proof: &Proof) -> Result<(), String>;

    /// Does not show it any more.
    fn hide(&self, proof: &Proof);
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The authority refused something, or could not be asked.
    #[error("{0}")]
    Authority(#[from] Error),
    /// It does not take proofs of this kind for a name.
    #[error("the authority does not take this kind of proof for {0}; another `challenge` may do")]
    NoChallenge(String),
    /// It looked at a proof and did not find it.
    #[error("{name} was not found to be ours: {reason}")]
    NotProven {
        /// The name.
        name: String,
        /// What the authority says.
        reason: String,
    },
    /// It gave the order up without a word.
    #[error("the authority gave the order up")]
    Invalid,
    /// Something here failed.
    #[error("{0}")]
    Stage(String),
}

/// Orders a certificate for these names: host names, and addresses.
///
/// # Errors
/// Fails where the authority does not give one.
pub async fn order(
    account: &Account,
    names: &[String],
    challenge: Challenge,
    transport: &Arc<dyn Transport>,
    stage: &dyn Stage,
) -> Result<Obtained, OrderError> {
    let result = attempt(account, names, challenge, transport, stage).await;
    if let Err(OrderError::Authority(Error::Api(problem))) = &result
        && problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist")
    {
        // The next attempt makes another.
        stage.keep_account(None).map_err(OrderError::Stage)?;
    }
    result
}

async fn attempt(
    account: &Account,
    names: &[String],
    challenge: Challenge,
    transport: &Arc<dyn Transport>,
    stage: &dyn Stage,
) -> Result<Obtained, OrderError> {
    let account = sign_in(account, transport, stage).await?;
    let identifiers: Vec<Identifier> = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Identifier::Ip(address),
            Err(_) => Identifier::Dns(name.clone()),
        })
        .collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut shown = Shown { stage, proofs: Vec::new() };
    prove(&mut order, challenge, &mut shown).await?;
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        Ok(_) => return Err(reason(&mut order, OrderError::Invalid).await),
        Err(error @ Error::Api(_)) => return Err(reason(&mut order, error.into()).await),
        Err(error) => return Err(error.into()),
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(Obtained { chain, key })
}

async fn sign_in(
    account: &Account,
    transport: &Arc<dyn Transport>,
    stage: &dyn Stage,
) -> Result<instant_acme::Account, OrderError> {
    let builder = instant_acme::Account::builder_with_http(Box::new(Carried(Arc::clone(transport))));
    let kept = stage.account().map_err(OrderError::Stage)?;
    // One that says nothing is as good as none.
    let kept = kept.and_then(|kept| serde_json::from_str::<AccountCredentials>(&kept).ok());
    if let Some(kept) = kept {
        return Ok(builder.from_credentials(kept).await?);
    }
    let contact = account.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    // The configuration says that they are agreed to, or there is no order.
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder.create(&wanted, account.directory.clone(), None).await?;
    let text = serde_json::to_string(&credentials).map_err(Error::from)?;
    stage.keep_account(Some(&text)).map_err(OrderError::Stage)?;
    Ok(account)
}

/// Proofs that are shown, until this is dropped.
struct Shown<'a> {
    stage: &'a dyn Stage,
    proofs: Vec<Proof>,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.proofs.iter().for_each(|proof| self.stage.hide(proof));
    }
}

/// Shows a proof for each name, and says so to the authority.
async fn prove(order: &mut Order, kind: Challenge, shown: &mut Shown<'_>) -> Result<(), OrderError> {
    let wanted = match kind {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            // It was shown not long ago.
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Err(not_proven(&authorization, name)),
        }
        let Some(mut challenge) = authorization.challenge(wanted.clone()) else {
            return Err(OrderError::NoChallenge(name));
        };
        let key = challenge.key_authorization();
        let proof = match kind {
            Challenge::Http01 => {
                Proof::File { token: challenge.token.clone(), content: key.as_str().to_owned() }
            }
            Challenge::TlsAlpn01 => {
                let digest = key.digest().as_ref().try_into();
                let digest =
                    digest.map_err(|_| OrderError::Stage("a SHA-256 of another length".to_owned()))?;
                Proof::Certificate { name: name.clone(), digest }
            }
        };
        shown.stage.show(&proof).map_err(OrderError::Stage)?;
        shown.proofs.push(proof);
        challenge.set_ready().await?;
    }
    Ok(())
}

/// Why an order is invalid: what the authority says of its names, or else of the order.
async fn reason(order: &mut Order, otherwise: OrderError) -> OrderError {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        if authorization.status == AuthorizationStatus::Invalid {
            let name = authorization.identifier().to_string();
            return not_proven(&authorization, name);
        }
    }
    otherwise
}

fn not_proven(state: &instant_acme::AuthorizationState, name: String) -> OrderError {
    let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
    let reason = problem.map_or_else(|| format!("{:?}", state.status), ToString::to_string);
    OrderError::NotProven { name, reason }
}
