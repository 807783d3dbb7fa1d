//! Checks of the admin listener and of the status listener.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::server::is_overlapping;
use super::validator::{SettingKey, SettingOrigin, ValidatedSetting, Validator};
use crate::config::address;
use crate::config::diagnostics::Problem;
use crate::config::file::{Admin, CertificateFiles, Located, LocatedTable, Status};
use crate::config::model::{self, AdminToken};
use crate::logic::model::server_tls::{DEFAULT_HANDSHAKE_TIMEOUT, ServerTls, TlsVersion};

/// The default address of the admin listener.
const ADMIN_ADDRESS: &str = "127.0.0.1:9900";

/// The admin address that switches the listener off.
const ADMIN_OFF: &str = "off";

/// An example for the help text.
const STATUS_ADDRESS: &str = "0.0.0.0:9901";

/// The size limit of a file with a token: the longest token, and a line end.
const MAX_TOKEN_FILE_BYTES: u64 = 4 * 1024;

const TOKEN_HELP: &str = "write a random one, as `openssl rand -hex 32 > admin.token` does";

type ClientListeners<'l> = &'l [(model::ListenerSpec, Range<usize>)];

impl Validator<'_> {
    pub(super) fn admin(
        &mut self,
        admin: &Option<LocatedTable<Admin>>,
        listen: ClientListeners<'_>,
    ) -> (model::AdminConfig, SettingOrigin) {
        let table = admin.clone().unwrap_or_default();
        let Admin { address, tls, token_file } = &table.value;
        let key = SettingKey::new(&table.span, "address", address);
        let default = ADMIN_ADDRESS.parse().ok();
        let setting = self.setting(&key, default, |text| parse_admin_address(text));
        self.check_own_address(&setting, listen);
        let is_unreadable = |key| self.unread.has_key(&table.span, key);
        let has_tls = tls.is_some() || is_unreadable("tls");
        let has_token = token_file.is_some() || is_unreadable("token_file");
        if let (Some(address), SettingOrigin::Given(span)) = (setting.value, &setting.origin)
            && !address.ip().is_loopback()
            && !(has_tls && has_token)
        {
            self.diagnostics.error(span, unprotected_problem(address, has_tls, has_token));
        }
        let config = model::AdminConfig {
            address: setting.value,
            tls: tls.as_ref().and_then(|tls| self.admin_tls(tls)),
            token: token_file.as_ref().and_then(|file| self.admin_token(file)),
        };
        (config, setting.origin)
    }

    pub(super) fn status(
        &mut self,
        status: Option<LocatedTable<Status>>,
        admin: &(model::AdminConfig, SettingOrigin),
        listen: ClientListeners<'_>,
    ) -> model::StatusConfig {
        let Some(LocatedTable { value: Status { address }, span: table }) = status else {
            return model::StatusConfig::default();
        };
        if address.is_none() {
            let help = format!("add `address = \"{STATUS_ADDRESS}\"`");
            let problem = Problem::new("the status listener needs an address", help);
            self.report_missing(&table, "address", problem);
        }
        let key = SettingKey::new(&table, "address", &address);
        let parse = |text: &String| address::parse_socket_address(text, STATUS_ADDRESS).map(Some);
        let setting = self.setting(&key, None, parse);
        self.check_own_address(&setting, listen);
        if let (Some(own), SettingOrigin::Given(span)) = (setting.value, &setting.origin)
            && let (model::AdminConfig { address: Some(other), .. }, origin) = admin
            && is_overlapping(*other, own)
        {
            let message = format!("{own} is the address of the admin listener, {other}");
            let help = "give the status listener a port of its own, such as 9901";
            let finding = self.diagnostics.error(span, Problem::new(message, help));
            if let SettingOrigin::Given(admin_span) = origin {
                finding.add_related(admin_span, "here");
            }
        }
        model::StatusConfig { address: setting.value }
    }

    /// Reports an address that a listener for clients has.
    fn check_own_address(
        &mut self,
        setting: &ValidatedSetting<Option<SocketAddr>>,
        listen: ClientListeners<'_>,
    ) {
        let Some(address) = setting.value else { return };
        let is_same = |(other, _): &&(model::ListenerSpec, Range<usize>)| {
            is_overlapping(other.address, address)
        };
        let Some((_, listener)) = listen.iter().find(is_same) else { return };
        match &setting.origin {
            SettingOrigin::Given(span) => {
                let message = format!("{address} is the address of a listener for clients");
                let problem = Problem::new(message, "give this listener a port of its own");
                self.diagnostics.error(span, problem).add_related(listener, "here");
            }
            SettingOrigin::Default => {
                let problem = Problem::new(
                    format!("{address} is the default address of the admin listener"),
                    "use another port, or set `[admin] address`",
                );
                self.diagnostics.error(listener, problem);
            }
            SettingOrigin::Invalid => {}
        }
    }

    fn admin_tls(&mut self, given: &LocatedTable<CertificateFiles>) -> Option<Arc<ServerTls>> {
        let certificate = self.listen_certificate(given)?;
        Some(Arc::new(ServerTls {
            certificates: vec![certificate],
            min_version: TlsVersion::V12,
            client_authority: None,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
        }))
    }

    fn admin_token(&mut self, file: &Located<String>) -> Option<AdminToken> {
        let bytes = self.read_file_within(file, MAX_TOKEN_FILE_BYTES)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "is not text".to_owned());
        match text.and_then(|text| AdminToken::parse(text.trim())) {
            Ok(token) => Some(token),
            Err(why) => {
                // The excerpt of the file hides the value of the key.
                let message = format!("the token in `{}` {why}", file.value);
                let problem = Problem::new(message, TOKEN_HELP);
                self.diagnostics.error(&file.span, problem);
                None
            }
        }
    }
}

fn parse_admin_address(text: &str) -> Result<Option<SocketAddr>, Problem> {
    if text == ADMIN_OFF {
        return Ok(None);
    }
    address::parse_socket_address(text, ADMIN_ADDRESS).map(Some)
}

/// Other machines can reach the admin API, which lacks TLS, a token or both.
fn unprotected_problem(address: SocketAddr, has_tls: bool, has_token: bool) -> Problem {
    let (lacks, mend) = match (has_tls, has_token) {
        (false, false) => (
            "neither TLS nor a token",
            "`tls = { certificate = \"admin.pem\", key = \"admin.key\" }` and \
             `token_file = \"admin.token\"`",
        ),
        (false, true) => ("no TLS", "`tls = { certificate = \"admin.pem\", key = \"admin.key\" }`"),
        (true, _) => ("no token", "`token_file = \"admin.token\"`"),
    };
    let port = address.port();
    Problem::new(
        format!("{} is not loopback, and the admin listener has {lacks}", address.ip()),
        format!(
            "for metrics and health alone write `[status] address = \"{address}\"` and leave admin \
             on loopback (\"127.0.0.1:{port}\" or \"{ADMIN_OFF}\"); for all of it add {mend}"
        ),
    )
}
