//! What every client of Kafka is told, and what it says: where the brokers are, how they are spoken to, who we are.
//!
//! What must stay true: every client is made of [`client`], and no password stands in an error or a log.

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::path::Path;
use std::sync::Mutex;

use crate::credentials;
use crate::sources::KafkaParams;

/// What every client of ours is told. Fails when a file that the settings name cannot be used.
pub(crate) fn client(params: &KafkaParams) -> Result<ClientConfig, String> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &params.brokers)
        .set("client.id", "overdrive")
        .set("security.protocol", params.security.name())
        // Small requests that someone waits for.
        .set("socket.nagle.disable", "true")
        // A broker that is back should be noticed within a second, not ten.
        .set("reconnect.backoff.max.ms", "1000")
        // Brokers close idle connections; that is not news.
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    if params.security.is_encrypted() {
        encrypt(&mut config, params)?;
    }
    if params.security.is_sasl() {
        log_in(&mut config, params)?;
    }
    Ok(config)
}

/// The client reads the files itself and says little of what is wrong with them: they are looked at before.
fn encrypt(config: &mut ClientConfig, params: &KafkaParams) -> Result<(), String> {
    let named = |path: &Path| !path.as_os_str().is_empty();
    if named(&params.ca) {
        credentials::certificates("[kafka] ca", &params.ca)?;
        config.set("ssl.ca.location", params.ca.to_string_lossy());
    }
    if named(&params.cert) {
        credentials::certificates("[kafka] cert", &params.cert)?;
        credentials::key("[kafka] key", &params.key)?;
        config.set("ssl.certificate.location", params.cert.to_string_lossy());
        config.set("ssl.key.location", params.key.to_string_lossy());
    }
    Ok(())
}

fn log_in(config: &mut ClientConfig, params: &KafkaParams) -> Result<(), String> {
    let password = match params.password.is_empty() {
        true => credentials::password("[kafka] password_file", &params.password_file)?,
        false => params.password.reveal().to_string(),
    };
    config.set("sasl.mechanism", params.sasl_mechanism.name());
    config.set("sasl.username", &params.username).set("sasl.password", password);
    Ok(())
}

/// What librdkafka says goes where our own logs go; the last thing that went wrong is kept for whoever waits.
#[derive(Default)]
pub struct Context {
    said: Mutex<Option<Said>>,
}

#[derive(Clone)]
struct Said {
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl Context {
    /// Why the brokers and we do not come together, and what to do, if another try cannot help.
    pub fn refusal(&self) -> Option<String> {
        let Said { code, reason } = self.said()?;
        Some(format!("{reason}; {}", remedy(code?, &reason)?))
    }

    /// The last thing that went wrong, to be put behind an error.
    pub fn cause(&self) -> String {
        self.said().map_or_else(String::new, |said| format!(" ({})", said.reason))
    }

    fn said(&self) -> Option<Said> {
        self.said.lock().expect("nobody panics with it").clone()
    }
}

const CERTIFICATES: &str = "check [kafka] security, ca, cert and key: the broker's certificate must come from an authority in ca and \
                            be for the host that brokers, and its advertised.listeners, name; ours, where it asks for one, \
                            from an authority of its";

/// What somebody must do about an error before another try can help.
fn remedy(code: RDKafkaErrorCode, reason: &str) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::SSL => Some(CERTIFICATES),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            Some("check [kafka] sasl_mechanism, username and password or password_file")
        }
        _ if is_alert(reason) => Some(CERTIFICATES),
        _ => None,
    }
}

/// Whether the broker hung up because of our certificate, or because we have none: over TLS 1.3 it says so when hands are shaken.
fn is_alert(reason: &str) -> bool {
    reason.contains(" alert ") && (reason.contains("certificate") || reason.contains("unknown ca"))
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn(&error, reason);
        let code = error.rdkafka_error_code();
        // That no broker is left comes after what went wrong with each, and says less.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.said.lock().expect("nobody panics with it") = Some(Said { code, reason: reason.to_string() });
        }
    }
}

impl ConsumerContext for Context {}

/// What librdkafka says of a client. To it a broker that is away is an error, to us something that passes.
pub(crate) fn say(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical | Error | Warning => tracing::warn!(target: "kafka", facility, "{message}"),
        Notice | Info => tracing::info!(target: "kafka", facility, "{message}"),
        _ => tracing::debug!(target: "kafka", facility, "{message}"),
    }
}

/// What went wrong with a client as a whole.
pub(crate) fn warn(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "kafka", %error, "{reason}");
}
