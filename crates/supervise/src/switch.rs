//! The ports of a running compartment in networks: a connection keeps each, and when the switch behind it
//! ends, whichever supervisor sees that first starts it again. The VMM connects to its socket anew by
//! itself, and the guest notices nothing but a pause.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use casemate_host::switch::join;
use casemate_plan::switch::Port;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::crew::register;

/// The ports, each with the task that looks after it. They are given up when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Ports(Vec<(JoinHandle<()>, Held)>);

/// A copy of the connection that keeps a port.
type Held = Rc<RefCell<Option<OwnedFd>>>;

impl Drop for Ports {
    /// At once: the next launch may follow, and needs the same ports. The task has its end of the
    /// connection until it is its turn.
    fn drop(&mut self) {
        for (task, held) in &self.0 {
            task.abort();
            if let Some(connection) = held.borrow_mut().take() {
                // A switch that has gone needs no word.
                let _ = shutdown(connection.as_raw_fd(), Shutdown::Both);
            }
        }
    }
}

/// Looks after ports. `lost` is called with the reason when one cannot be had again.
pub(crate) fn keep(
    ports: Vec<(Port, AsyncFd<OwnedFd>)>,
    jail_program: &std::path::Path,
    lost: impl Fn(&Port, String) + 'static,
) -> Ports {
    let lost = Rc::new(lost);
    let task = |(port, connection): (Port, AsyncFd<OwnedFd>)| {
        let (lost, jail_program) = (Rc::clone(&lost), jail_program.to_owned());
        let held = Held::default();
        *held.borrow_mut() = connection.get_ref().try_clone().ok();
        let kept = Rc::clone(&held);
        let task = tokio::task::spawn_local(async move {
            let reason = keep_one(&port, connection, jail_program, &kept).await;
            lost(&port, reason);
        });
        (task, held)
    };
    Ports(ports.into_iter().map(task).collect())
}

/// Until it cannot be had again; returns why.
async fn keep_one(
    port: &Port,
    mut connection: AsyncFd<OwnedFd>,
    jail: PathBuf,
    held: &Held,
) -> String {
    let network = &port.network;
    loop {
        // The switch says nothing of itself: this is its end.
        let _ = connection.readable().await;
        drop(connection);
        *held.borrow_mut() = None;
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
            Ok(joined) => {
                connection = joined;
                // Without a copy it is given up a moment later.
                *held.borrow_mut() = connection.get_ref().try_clone().ok();
            }
            Err(reason) => return reason,
        }
        let taken = began.elapsed().as_millis();
        tracing::info!("a port of the network `{network}` is there again after {taken} ms");
    }
}
