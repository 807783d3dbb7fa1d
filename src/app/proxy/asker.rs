//! Who asks, and where what becomes of it is written down.

use std::rc::Rc;

use crate::app::access::Note;

use super::client::Client;

/// All that is known of who a request comes from.
pub(super) struct Asker<'a> {
    /// Who has the connection.
    pub(super) client: &'a Rc<Client>,
    /// Where the request is written down, if it is.
    pub(super) note: Option<&'a Rc<Note>>,
}
