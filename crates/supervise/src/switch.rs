//! The ports of a running compartment in networks: a connection keeps each, and when the switch behind it
//! ends, whichever supervisor sees that first starts it again. The VMM connects to its socket anew by
//! itself, and the guest notices nothing but a pause.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use casemate_host::switch::join;
use casemate_plan::switch::Port;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::crew::register;

/// The ports, each with the task that looks after it. They are given up when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ports(Vec<JoinHandle<()>>);

impl Drop for Ports {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Looks after ports. `lost` is called with the reason when one cannot be had again.
pub(crate) fn keep(
    ports: Vec<(Port, AsyncFd<OwnedFd>)>,
    jail_program: &std::path::Path,
    lost: impl Fn(&Port, String) + 'static,
) -> Ports {
    let lost = Rc::new(lost);
    let task = |(port, connection)| {
        let (lost, jail_program) = (Rc::clone(&lost), jail_program.to_owned());
        tokio::task::spawn_local(async move {
            let reason = keep_one(&port, connection, jail_program).await;
            lost(&port, reason);
        })
    };
    Ports(ports.into_iter().map(task).collect())
}

/// Until it cannot be had again; returns why.
async fn keep_one(port: &Port, mut connection: AsyncFd<OwnedFd>, jail: PathBuf) -> String {
    let network = &port.network;
    loop {
        // The switch says nothing of itself: this is its end.
        let _ = connection.readable().await;
        drop(connection);
        tracing::warn!("the switch of the network `{network}` has ended");
        let began = Instant::now();
        let (wanted, jail_program) = (port.clone(), jail.clone());
        let joined = tokio::task::spawn_blocking(move || join(&wanted, &jail_program)).await;
        let joined = match joined {
            Ok(Ok(joined)) => {
                register(joined, Interest::READABLE).map_err(|error| error.to_string())
            }
            Ok(Err(error)) => Err(crate::chain(&error)),
            Err(error) => Err(error.to_string()),
        };
        match joined {
            Ok(joined) => connection = joined,
            Err(reason) => return reason,
        }
        let taken = began.elapsed().as_millis();
        tracing::info!("a port of the network `{network}` is there again after {taken} ms");
    }
}
