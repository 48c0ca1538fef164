//! Devices that are told of messages by push.

use beseda_protocol::{
    model::Device,
    rest::{DeviceList, NewDevice, PushInfo},
};
use http::Method;

use super::Rest;
use crate::Error;

impl Rest {
    /// Which platforms are set up for push, and the key for a browser's subscription.
    pub async fn push_info(&self) -> Result<PushInfo, Error> {
        self.ask(self.call(Method::GET, &["push"])).await
    }

    /// Registers a device of the caller's under its own id, or registers it anew.
    pub async fn put_device(&self, device_id: &str, device: &NewDevice) -> Result<Device, Error> {
        self.ask(self.call(Method::PUT, &["devices", device_id]).json(device)).await
    }

    /// The caller's devices, latest registered first.
    pub async fn list_devices(&self) -> Result<DeviceList, Error> {
        self.ask(self.call(Method::GET, &["devices"])).await
    }

    /// Forgets a device of the caller's, if there is such a one.
    pub async fn delete_device(&self, device_id: &str) -> Result<(), Error> {
        self.done(self.call(Method::DELETE, &["devices", device_id])).await
    }
}
