//! What operators ask.
pub(super) const ROUTES: &[(i32, super::Route)] = &[];
