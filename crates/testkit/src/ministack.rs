//! ministack: a second emulator of AWS on loopback, with other gaps than moto's. It keeps accounts apart: an access key
//! id of 12 digits calls as that account, any other as 123456789012.

use crate::emulator::Emulator;

/// The socket is bound here and not by ministack, so that it is on loopback and its port is free, and nobody has to wait
/// until it listens. ministack opens a port for devices on all addresses unless it is told not to. A parameter of a template
/// of type Number stays a text in it, which its ECS cannot count with: that one error is mended, since nothing from outside can.
const PROGRAM: &str = r#"
import asyncio, socket
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
os.environ.update(GATEWAY_PORT=str(port), BIND_HOST="127.0.0.1", IOT_MTLS_ENABLED="0", SFTP_ENABLED="0",
                  MINISTACK_ACCOUNT_ID="123456789012", LOG_LEVEL="ERROR")
from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app
from ministack.services import ecs
def with_number(call):
    def mended(request):
        if "desiredCount" in request:
            request["desiredCount"] = int(request["desiredCount"])
        return call(request)
    return mended
ecs._create_service, ecs._update_service = with_number(ecs._create_service), with_number(ecs._update_service)
config = Config()
config.bind = [f"fd://{listener.fileno()}"]
asyncio.run(serve(app, config))
"#;

pub struct Ministack(Emulator);

impl Ministack {
    pub fn start() -> Self {
        Self(Emulator::start("ministack", PROGRAM))
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        self.0.url()
    }
}
