//! Links and networks.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to say about links to the host and networks.
#[derive(Debug, Subcommand)]
pub(crate) enum Net {
    /// Show what each compartment reaches, and how many packets met which rule.
    Show {
        /// Name of a compartment; all of them when not given.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which firewall rule decides about a destination. Nothing is sent.
    Test(NetTest),
    /// Show what the switches of networks between compartments have counted, and how long each guest
    /// takes to answer.
    Stats {
        /// Name of a network or of a compartment; all networks when not given.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Record the frames of a compartment's port in a network, for tcpdump and Wireshark, until
    /// interrupted. Only where [switch] says capture = true.
    Capture(NetCapture),
    /// Clear up what a supervisor that was killed left of a network.
    Repair,
}

/// Arguments of `net capture`.
#[derive(Args, Debug)]
pub(crate) struct NetCapture {
    /// Name of the running compartment.
    pub(crate) name: String,
    /// The file that is written, as pcap.
    pub(crate) file: PathBuf,
    /// The network, if it is a member of several.
    #[arg(long)]
    pub(crate) network: Option<String>,
    /// End after so many frames.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) frames: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seconds: Option<u64>,
}

/// Arguments of `net test`.
#[derive(Args, Debug)]
pub(crate) struct NetTest {
    /// Name of the compartment.
    pub(crate) name: String,
    /// HOST:PORT; a name, an address, or an IPv6 address in brackets. HOST alone with `--icmp`.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) destination: String,
    /// UDP in place of TCP.
    #[arg(long, conflicts_with = "icmp")]
    pub(crate) udp: bool,
    /// A ping.
    #[arg(long)]
    pub(crate) icmp: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
