//! Who calls, and what they may do: tokens, sessions, and the guard before every route.

mod guard;
mod routes;
mod session;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use chrono::TimeDelta;
use gust_model::record::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::Semaphore;

pub(crate) use guard::{Guarded, guard};
pub(crate) use routes::{endpoints, session_routes};
pub(crate) use session::{CSRF_FIELD, CSRF_HEADER};

/// How long a token lasts (`[api_auth] jwt_expiration_time`).
const TOKEN_LIFE: TimeDelta = TimeDelta::days(1);
/// How long a token for the command line lasts (`[api_auth] jwt_cli_expiration_time`).
const CLI_TOKEN_LIFE: TimeDelta = TimeDelta::hours(1);
/// How many passwords are checked at once. Each takes 19 MiB and a core for a while.
const PASSWORD_CHECKS: usize = 2;
/// The fewest bytes of a secret that keeps HS256's promise.
const MIN_SECRET_BYTES: usize = 32;

/// How callers prove who they are.
#[derive(Debug, Clone)]
pub enum AuthMode {
    /// Everybody who reaches the server is an administrator: a token is given to whoever asks, and a browser gets a
    /// session at once. Only for a server bound to loopback; the host's name is checked and forwarded requests are
    /// refused.
    AllAdmins,
    /// One administrator with a password, besides tokens signed with the secret.
    Password {
        /// The name.
        username: String,
        /// The password's argon2 hash in PHC form, as [`Auth::hash_password`] makes it.
        password_hash: String,
    },
    /// Only tokens signed with the secret.
    TokensOnly,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Look at everything but Variables, Connections and the configuration.
    Viewer,
}

/// How a caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By a token in the `Authorization` header.
    Token,
    /// By a cookie; what it changes needs this secret as well, which only the server's own pages know.
    Cookie {
        /// The secret.
        csrf: String,
    },
    /// Not at all: the route is open to anybody.
    Nothing,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub user: String,
    /// What they may do.
    pub role: Role,
    /// How they were recognised.
    pub proof: Proof,
}

impl Identity {
    /// Somebody who was not recognised, on a route that is open.
    #[must_use]
    pub(crate) fn nobody() -> Self {
        Self { user: "Anonymous".into(), role: Role::Viewer, proof: Proof::Nothing }
    }

    /// What a page puts into its forms and scripts so that changes are accepted from it.
    #[must_use]
    pub fn csrf(&self) -> &str {
        match &self.proof {
            Proof::Cookie { csrf } => csrf,
            Proof::Token | Proof::Nothing => "",
        }
    }
}

/// Why a token is not taken, or could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    /// It has run out.
    #[error("Token Expired")]
    Expired,
    /// It is not one of ours.
    #[error("Invalid JWT token")]
    Invalid,
    /// The secret is too short.
    #[error("the API's secret has {0} bytes; it needs at least {MIN_SECRET_BYTES} random ones")]
    WeakSecret(usize),
    /// The password's hash is none.
    #[error("the administrator's password hash is not an argon2 hash in PHC form: {0}")]
    BadHash(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    iat: i64,
    exp: i64,
    /// Set in sessions: what changes through the cookie must show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    csrf: Option<String>,
}

/// Makes and checks tokens.
pub struct Auth {
    mode: AuthMode,
    encoding: EncodingKey,
    decoding: DecodingKey,
    password_checks: Semaphore,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

impl Auth {
    /// Signs with `secret`, which the caller keeps from start to start and shares among servers.
    ///
    /// # Errors
    /// [`AuthError::WeakSecret`] for one of less than 32 bytes, [`AuthError::BadHash`].
    pub fn new(mode: AuthMode, secret: &[u8]) -> Result<Self, AuthError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(AuthError::WeakSecret(secret.len()));
        }
        if let AuthMode::Password { password_hash, .. } = &mode {
            PasswordHash::new(password_hash).map_err(|error| AuthError::BadHash(error.to_string()))?;
        }
        Ok(Self {
            mode,
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            password_checks: Semaphore::new(PASSWORD_CHECKS),
        })
    }

    /// A password's hash, for [`AuthMode::Password`].
    ///
    /// # Errors
    /// [`AuthError::BadHash`] if the machine gives no randomness for its salt.
    pub fn hash_password(password: &str) -> Result<String, AuthError> {
        Argon2::default()
            .hash_password(password.as_bytes())
            .map(|hash| hash.to_string())
            .map_err(|error| AuthError::BadHash(error.to_string()))
    }

    /// How callers prove who they are.
    #[must_use]
    pub fn mode(&self) -> &AuthMode {
        &self.mode
    }

    /// A token for somebody, from `now` on.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] if it cannot be signed.
    pub fn token(&self, user: &str, role: Role, now: Timestamp) -> Result<String, AuthError> {
        self.sign(user, role, now, TOKEN_LIFE, None)
    }

    fn sign(
        &self,
        user: &str,
        role: Role,
        now: Timestamp,
        life: TimeDelta,
        csrf: Option<String>,
    ) -> Result<String, AuthError> {
        let claims =
            Claims { sub: user.to_owned(), role, iat: now.timestamp(), exp: (now + life).timestamp(), csrf };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|_| AuthError::Invalid)
    }

    fn read(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // The expiry is checked against the clock that was given, not the machine's.
        validation.validate_exp = false;
        let claims: Claims =
            jsonwebtoken::decode(token, &self.decoding, &validation).map_err(|_| AuthError::Invalid)?.claims;
        if claims.exp <= now.timestamp() { Err(AuthError::Expired) } else { Ok(claims) }
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// [`AuthError::Expired`], [`AuthError::Invalid`].
    pub fn check_token(&self, token: &str, now: Timestamp) -> Result<Identity, AuthError> {
        let claims = self.read(token, now)?;
        Ok(Identity { user: claims.sub, role: claims.role, proof: Proof::Token })
    }

    fn check_session(&self, token: &str, now: Timestamp) -> Result<Identity, AuthError> {
        let claims = self.read(token, now)?;
        let csrf = claims.csrf.ok_or(AuthError::Invalid)?;
        Ok(Identity { user: claims.sub, role: claims.role, proof: Proof::Cookie { csrf } })
    }

    /// Whether it is the administrator's name and password. It takes as long for a wrong name as for a wrong password.
    async fn check_password(&self, username: &str, password: &str) -> bool {
        let AuthMode::Password { username: known, password_hash } = &self.mode else { return false };
        let Ok(_turn) = self.password_checks.acquire().await else { return false };
        let (hash, password) = (password_hash.clone(), password.to_owned());
        let is_right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await;
        is_right.unwrap_or(false) && username == known
    }
}
