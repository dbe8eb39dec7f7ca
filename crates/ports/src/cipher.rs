use thiserror::Error;

/// Seals what must not be readable at rest. Keys rotate: what an older key sealed still opens.
pub trait Cipher: Send + Sync {
    /// Seals `plain` for one place (`variable/KEY/value`); it opens only for the same place, so that sealed values
    /// cannot be swapped between rows.
    fn seal(&self, place: &str, plain: &str) -> Result<String, CipherError>;

    /// Opens what [`Cipher::seal`] made for the same place.
    fn open(&self, place: &str, sealed: &str) -> Result<String, CipherError>;
}

/// Why something could not be sealed or opened. It never holds the secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CipherError {
    /// It was sealed with a key that is not on the ring.
    #[error("{place} was sealed with the key {key_id:?}, which is not among the keys given; add that key")]
    UnknownKey {
        /// Where the value stands.
        place: String,
        /// The key's short name.
        key_id: String,
    },
    /// It was changed, belongs elsewhere, or is not of our making.
    #[error("{place} cannot be opened: the stored value was damaged or belongs to another row")]
    Damaged {
        /// Where the value stands.
        place: String,
    },
}
