//! The listening side: one port that can be closed for a while, and connections that can be cut in the middle.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Who may connect, seen from outside the listener's task. Clones share it.
#[derive(Clone)]
pub(super) struct Gate {
    wanted_down: watch::Sender<bool>,
    is_down: watch::Receiver<bool>,
    /// Cut when the gate closes; each opening begins with a new one.
    epoch: Arc<Mutex<CancellationToken>>,
}

impl Gate {
    /// Returns when new connections are refused and open ones are cut, or accepted again.
    pub(super) async fn set_down(&self, down: bool) {
        self.wanted_down.send_replace(down);
        if down {
            self.cut_all();
        }
        // An error means that the listener is gone: everything is refused for good.
        let _ = self.is_down.clone().wait_for(|is| *is == down).await;
    }

    pub(super) fn cut_all(&self) {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *epoch).cancel();
    }

    fn connection(&self) -> Wire {
        Wire(self.epoch.lock().unwrap_or_else(PoisonError::into_inner).child_token())
    }
}

/// One connection's scissors, given to every request that comes over it.
#[derive(Clone)]
pub(super) struct Wire(CancellationToken);

impl Wire {
    /// The client sees the connection end; what is not written yet never is.
    pub(super) fn cut(&self) {
        self.0.cancel();
    }
}

impl Connected<IncomingStream<'_, Listener>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().wire.clone()
    }
}

pub(super) struct Listener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    gate: Gate,
    down: watch::Receiver<bool>,
    is_down: watch::Sender<bool>,
}

impl Listener {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<(Self, Gate)> {
        let socket = TcpListener::bind(address).await?;
        let (wanted_down, down) = watch::channel(false);
        let (is_down_sender, is_down) = watch::channel(false);
        let gate = Gate { wanted_down, is_down, epoch: Arc::default() };
        let address = socket.local_addr()?;
        Ok((Self { address, socket: Some(socket), gate: gate.clone(), down, is_down: is_down_sender }, gate))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port until it is wanted again. A socket that is bound but does not listen keeps the port ours.
    async fn stay_down(&mut self) -> io::Result<()> {
        self.socket = None;
        let held = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        held.set_reuseaddr(true)?;
        held.bind(self.address)?;
        self.is_down.send_replace(true);
        // An error means that nobody can open the gate any more.
        let _ = self.down.wait_for(|down| !down).await;
        self.socket = Some(held.listen(1024)?);
        self.is_down.send_replace(false);
        Ok(())
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Some(socket) = self.socket.as_ref().filter(|_| !*self.down.borrow()) else {
                if let Err(error) = self.stay_down().await {
                    tracing::warn!(%error, "the embedded GitLab cannot take its port again");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                continue;
            };
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        // Small answers must not wait for the client's acknowledgement of the headers.
                        let _ = stream.set_nodelay(true);
                        return (Connection::new(stream, self.gate.connection()), peer);
                    }
                    // Out of file descriptors, or a client that went away: the next one may succeed.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                },
                _ = self.down.changed() => {}
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    wire: Wire,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn new(stream: TcpStream, wire: Wire) -> Self {
        let cut = Box::pin(wire.0.clone().cancelled_owned());
        Self { stream, wire, cut }
    }

    fn is_cut(&self) -> bool {
        self.wire.0.is_cancelled()
    }
}

fn cut_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut() || self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut() {
            return Poll::Ready(Err(cut_error()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
