//! The endpoint of a shard, for those of its actors that send by it.

use std::cell::RefCell;
use std::rc::Rc;

use super::Env;
use crate::sip::endpoint::Endpoint;

impl Env {
    /// This endpoint is its shard's from now on.
    pub(crate) fn share_endpoint(&self, endpoint: Endpoint) -> Rc<RefCell<Endpoint>> {
        let endpoint = Rc::new(RefCell::new(endpoint));
        self.0.common.endpoint.replace(Rc::downgrade(&endpoint));
        endpoint
    }

    /// The endpoint of its shard, while that lives.
    pub(crate) fn endpoint(&self) -> Option<Rc<RefCell<Endpoint>>> {
        self.0.common.endpoint.borrow().upgrade()
    }
}
