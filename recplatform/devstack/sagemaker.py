"""The model server as a part of the stack."""

import http.client
import sys

from recplatform.devstack.model import VARIABLE, check_wheels
from recplatform.devstack.process import HOST, Children, listening_socket, wait_until


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
        wait_until(self._child, self._answers)
        return {VARIABLE: f"http://{HOST}:{self._port}"}

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=5)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
