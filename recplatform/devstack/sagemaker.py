"""The model server as a part of the stack."""

import sys

from recplatform.devstack.model import VARIABLE, check_wheels
from recplatform.devstack.ports import HOST, http_status, listening_socket
from recplatform.devstack.process import Children, wait_until


class SageMaker:
    """The embedding model behind the interface of SageMaker's runtime."""

    variables = (VARIABLE,)

    def __init__(self) -> None:
        check_wheels()

    def start(self, children: Children) -> None:
        with listening_socket() as listener:
            self._port: int = listener.getsockname()[1]
            self._child = children.spawn(
                "model",
                [
                    *(sys.executable, "-m", "recplatform.devstack.model_server"),
                    *("--fd", str(listener.fileno())),
                ],
                pass_fds=[listener.fileno()],
            )

    def wait(self) -> dict[str, str]:
        wait_until(self._child, lambda: http_status(self._port, "/ping") == 200)
        return {VARIABLE: f"http://{HOST}:{self._port}"}
