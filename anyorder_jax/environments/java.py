"""Java: Java machines beside this process, for worlds whose rules lie in a jar.

    python process     session 0 ─┐                          a machine lives while one of its sessions is open, and
                       session 1 ─┴─► java machine           never longer than the process: it ends when its standard
                       session 2 ───► java machine           input closes, however the process died

Whether sessions may share a machine is the world's to say: it depends on what its classes keep in static fields.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

MISSING = (
    "needs Java, and there is no `java` on PATH or in JAVA_HOME. Install it (Debian: `apt-get install "
    "default-jre-headless`)."
)


def find(who: str) -> str:
    """The path of the `java` command: JAVA_HOME's, else the first on PATH.

    Args:
      who: needs it, for the error.

    Raises:
      RuntimeError: there is none; says what to install.
    """
    home = os.environ.get("JAVA_HOME")
    found = (home and shutil.which(os.path.join(home, "bin", "java"))) or shutil.which("java")
    if not found:
        raise RuntimeError(f"environments: {who} {MISSING}")
    return found


class Machine:
    """A running Java machine.

    Args:
      who: the world, for errors.
      jar: its path; the machine runs in its folder, for beside it lie files that it reads.
      options: of the `java` command.
    """

    def __init__(self, who: str, jar: str, options: Sequence[str]) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        try:
            port, token, process = launch_gateway(
                classpath=jar,
                cwd=os.path.dirname(jar),
                javaopts=["-XX:+UseSerialGC", *options],
                die_on_exit=True,
                enable_auth=True,
                java_path=find(who),
                return_proc=True,
            )
        except ValueError:  # it wrote no port
            raise RuntimeError(f"environments: {who}: Java does not start. Try `java -version`.") from None
        parameters = GatewayParameters(port=port, auth_token=token, auto_field=True)
        self._gateway = JavaGateway(gateway_parameters=parameters, java_process=process)
        self._process = process
        self.jvm: Any = self._gateway.jvm
        self.num_sessions = 0
        self.is_usable = True

    def close(self) -> None:
        """Ends it."""
        self.is_usable = False
        with contextlib.suppress(Exception):
            self._gateway.shutdown()
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()


class Client:
    """A session's object in a Java machine.

    Args:
      who: the world, for errors.
      jar: the path of its classes.
      options: of the `java` command.
      make: the session's object, from `machine.jvm`.
      is_shared: whether all such sessions of this process live in one machine.

    Raises:
      RuntimeError: there is no Java. It is started by the first `begin`.
    """

    _shared: ClassVar[dict[str, Machine]] = {}

    def __init__(
        self, who: str, jar: str, options: Sequence[str], make: Callable[[Any], Any], *, is_shared: bool
    ) -> None:
        find(who)
        self._who, self._jar, self._options, self._make = who, jar, tuple(options), make
        self._is_shared = is_shared
        self._machine: Machine | None = None
        self._object: Any = None

    def begin(self) -> bool:
        """Sees to it that there is an object that can be called; says whether it is a new one, as it is at first and
        after a call that was cut off.

        Raises:
          RuntimeError: Java does not start.
        """
        if self._machine is not None and self._machine.is_usable:
            return False
        self.close()
        machine = self._shared.get(self._jar) if self._is_shared else None
        if machine is None or not machine.is_usable:
            machine = Machine(self._who, self._jar, self._options)
            if self._is_shared:
                self._shared[self._jar] = machine
        machine.num_sessions += 1
        self._machine, self._object = machine, self._make(machine.jvm)
        return True

    @property
    def jvm(self) -> Any:
        """The connection to the Java machine; there after `begin`."""
        assert self._machine is not None
        return self._machine.jvm

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the session's object returns, after `begin`.

        Raises:
          RuntimeError: an earlier call was cut off (by an alarm, say), and Java is still at work on it.
          py4j.protocol.Py4JError: the method failed, or Java died.
        """
        from py4j.protocol import Py4JJavaError

        machine = self._machine
        if machine is None or not machine.is_usable:
            raise RuntimeError(f"environments: {self._who}: its Java was cut off in another call. Begin an episode.")
        machine.is_usable = False
        try:
            found = getattr(self._object, method)(*arguments)
        except Py4JJavaError:  # the method says no; the machine is well
            machine.is_usable = True
            raise
        machine.is_usable = True
        return found

    def texts(self, method: str, *arguments: Any) -> list[str]:
        """`call` of a method that returns a list of texts without newlines, in one message (a Java list's own iterator
        sends one for each)."""
        joined = self.jvm.java.lang.String.join("\n", self.call(method, *arguments))
        return joined.split("\n") if joined else []

    def close(self) -> None:
        """Gives the object up; the last session of a machine ends it."""
        machine, self._machine, self._object = self._machine, None, None
        if machine is None:
            return
        machine.num_sessions -= 1
        if machine.num_sessions == 0 or not machine.is_usable:
            if self._shared.get(self._jar) is machine:
                del self._shared[self._jar]
            machine.close()
