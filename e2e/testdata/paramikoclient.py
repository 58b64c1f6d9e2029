"""Uses an agent with paramiko: PORT KEY FOLDER ECHO PROXYCOMMAND."""

import os
import sys

import paramiko

port, key, folder, echo, proxy = sys.argv[1:]
data = os.urandom(3 << 20)


def connect(sock=None):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1", int(port), "abc", key_filename=key, sock=sock,
        look_for_keys=False, allow_agent=False, timeout=60,
    )
    return client


# A command, by way of a ProxyCommand.
client = connect(paramiko.ProxyCommand(proxy))
stdin, stdout, stderr = client.exec_command("cat; echo err >&2; exit 7")
stdin.write("in\n")
stdin.channel.shutdown_write()
assert stdout.read() == b"in\n"
assert stderr.read() == b"err\n"
assert stdout.channel.recv_exit_status() == 7
client.close()

client = connect()
print(client.get_transport().remote_cipher)

# Files.
sftp = client.open_sftp()
sftp.chdir(folder)
with sftp.open("file", "wb") as f:
    f.set_pipelined(True)
    f.write(data)
sftp.rename("file", "moved")
sftp.chmod("moved", 0o600)
attributes = sftp.stat("moved")
assert attributes.st_size == len(data) and attributes.st_mode & 0o777 == 0o600, attributes
sftp.symlink("moved", "link")
assert sftp.readlink("link") == "moved", sftp.readlink("link")
with sftp.open("link", "rb") as f:
    f.prefetch()
    assert f.read() == data
assert sorted(sftp.listdir()) == ["link", "moved"], sftp.listdir()
try:
    sftp.stat("missing")
    raise AssertionError("a missing file is there")
except FileNotFoundError:
    pass
sftp.close()

# A shell on a terminal that changes its size.
shell = client.invoke_shell("xterm", 80, 24)
shell.resize_pty(101, 37)
shell.sendall(b"stty size; exit 5\n")
shown = b""
while chunk := shell.recv(4096):
    shown += chunk
assert b"37 101" in shown, shown
assert shell.recv_exit_status() == 5

# A forward that is closed half by half.
host, _, echo_port = echo.rpartition(":")
channel = client.get_transport().open_channel("direct-tcpip", (host, int(echo_port)), ("127.0.0.1", 1))
channel.sendall(b"over")
channel.shutdown_write()
back = b""
while chunk := channel.recv(4096):
    back += chunk
assert back == b"over", back
client.close()
print("all is well")
