//! The parts of a message that only its own messaging system knows.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The form in which a driver received a message, for a driver of the same system that publishes a
/// copy of it: types of headers, properties without a header of their own. Opaque to the layers
/// between, and cheap to clone.
///
/// A driver of another system ignores it. Whatever others should see belongs into the headers.
///
/// ```
/// use traced_broker::driver::Native;
///
/// /// A flag that only this broker knows.
/// struct Urgent(bool);
///
/// let native = Native::new("my-broker", Urgent(true));
/// assert!(native.of::<Urgent>("my-broker").expect("the same system").0);
/// assert!(native.of::<Urgent>("kafka").is_none());
/// ```
#[derive(Clone)]
pub struct Native {
    system: &'static str,
    data: Arc<dyn Any + Send + Sync>,
}

impl Native {
    /// Wraps the data of a driver; `system` is that of its
    /// [`Identity`](crate::driver::Identity::system).
    pub fn new(system: &'static str, data: impl Any + Send + Sync) -> Self {
        Self::shared(system, Arc::new(data))
    }

    /// Wraps data that is shared with other parts of the driver.
    pub fn shared(system: &'static str, data: Arc<dyn Any + Send + Sync>) -> Self {
        Self { system, data }
    }

    /// Returns the data if it is of this system and type.
    pub fn of<T: Any>(&self, system: &str) -> Option<&T> {
        if self.system == system { self.data.downcast_ref() } else { None }
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Native").field(&self.system).finish()
    }
}
