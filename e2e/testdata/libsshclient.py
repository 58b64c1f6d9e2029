"""Uses an agent with libssh: PORT KEY FOLDER ECHO PROXYCOMMAND."""

import ctypes
import os
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, c_ssize_t, c_uint, c_void_p

port, key, folder, echo, proxy = (arg.encode() for arg in sys.argv[1:])
lib = ctypes.CDLL("libssh.so.4")

# The names and numbers of libssh.h.
OPTION_HOST, OPTION_PORT_STR, OPTION_USER, OPTION_PROXYCOMMAND = 0, 2, 4, 19
OPTION_PROCESS_CONFIG = 38
for name, result, *arguments in [
    ("ssh_new", c_void_p),
    ("ssh_version", c_char_p, c_int),
    ("ssh_get_error", c_char_p, c_void_p),
    ("ssh_get_cipher_in", c_char_p, c_void_p),
    ("ssh_options_set", c_int, c_void_p, c_int, c_void_p),
    ("ssh_connect", c_int, c_void_p),
    ("ssh_disconnect", None, c_void_p),
    ("ssh_free", None, c_void_p),
    ("ssh_pki_import_privkey_file", c_int, c_char_p, c_char_p, c_void_p, c_void_p, c_void_p),
    ("ssh_userauth_publickey", c_int, c_void_p, c_char_p, c_void_p),
    ("ssh_channel_new", c_void_p, c_void_p),
    ("ssh_channel_open_session", c_int, c_void_p),
    ("ssh_channel_open_forward", c_int, c_void_p, c_char_p, c_int, c_char_p, c_int),
    ("ssh_channel_request_pty_size", c_int, c_void_p, c_char_p, c_int, c_int),
    ("ssh_channel_change_pty_size", c_int, c_void_p, c_int, c_int),
    ("ssh_channel_request_shell", c_int, c_void_p),
    ("ssh_channel_request_exec", c_int, c_void_p, c_char_p),
    ("ssh_channel_write", c_int, c_void_p, c_char_p, c_uint),
    ("ssh_channel_send_eof", c_int, c_void_p),
    ("ssh_channel_read", c_int, c_void_p, c_char_p, c_uint, c_int),
    ("ssh_channel_get_exit_status", c_int, c_void_p),
    ("ssh_channel_free", None, c_void_p),
    ("sftp_new", c_void_p, c_void_p),
    ("sftp_init", c_int, c_void_p),
    ("sftp_open", c_void_p, c_void_p, c_char_p, c_int, c_uint),
    ("sftp_write", c_ssize_t, c_void_p, c_char_p, c_size_t),
    ("sftp_read", c_ssize_t, c_void_p, c_char_p, c_size_t),
    ("sftp_fsync", c_int, c_void_p),
    ("sftp_close", c_int, c_void_p),
    ("sftp_rename", c_int, c_void_p, c_char_p, c_char_p),
    ("sftp_free", None, c_void_p),
]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


def connect(proxied):
    session = lib.ssh_new()
    no = c_int(0)

    def check(code, what):
        assert code == 0, (what, code, lib.ssh_get_error(session))

    check(lib.ssh_options_set(session, OPTION_PROCESS_CONFIG, byref(no)), "configuration")
    check(lib.ssh_options_set(session, OPTION_HOST, b"127.0.0.1"), "host")
    check(lib.ssh_options_set(session, OPTION_PORT_STR, port), "port")
    check(lib.ssh_options_set(session, OPTION_USER, b"abc"), "user")
    if proxied:
        check(lib.ssh_options_set(session, OPTION_PROXYCOMMAND, proxy), "proxy")
    check(lib.ssh_connect(session), "connect")
    private = c_void_p()
    check(lib.ssh_pki_import_privkey_file(key, None, None, None, byref(private)), "key")
    check(lib.ssh_userauth_publickey(session, None, private), "login")
    return session, check


def read(channel, stderr=0):
    text, buffer = b"", ctypes.create_string_buffer(4096)
    while (n := lib.ssh_channel_read(channel, buffer, len(buffer), stderr)) > 0:
        text += buffer.raw[:n]
    assert n == 0, n
    return text


print(lib.ssh_version(0))

# A command, by way of a ProxyCommand.
session, check = connect(True)
channel = lib.ssh_channel_new(session)
check(lib.ssh_channel_open_session(channel), "session")
check(lib.ssh_channel_request_exec(channel, b"cat; echo err >&2; exit 7"), "exec")
assert lib.ssh_channel_write(channel, b"in\n", 3) == 3
check(lib.ssh_channel_send_eof(channel), "eof")
assert read(channel) == b"in\n"
assert read(channel, 1) == b"err\n"
assert lib.ssh_channel_get_exit_status(channel) == 7
lib.ssh_channel_free(channel)
lib.ssh_disconnect(session)

session, check = connect(False)
print(lib.ssh_get_cipher_in(session))

# Files.
data = os.urandom(1 << 20)
sftp = lib.sftp_new(session)
check(lib.sftp_init(sftp), "sftp")
file = lib.sftp_open(sftp, folder + b"/file", os.O_WRONLY | os.O_CREAT, 0o600)
assert file
for at in range(0, len(data), 32 << 10):
    piece = data[at:at + (32 << 10)]
    assert lib.sftp_write(file, piece, len(piece)) == len(piece)
check(lib.sftp_fsync(file), "fsync")
check(lib.sftp_close(file), "close")
check(lib.sftp_rename(sftp, folder + b"/file", folder + b"/moved"), "rename")
file = lib.sftp_open(sftp, folder + b"/moved", os.O_RDONLY, 0)
assert file
back, buffer = b"", ctypes.create_string_buffer(32 << 10)
while (n := lib.sftp_read(file, buffer, len(buffer))) > 0:
    back += buffer.raw[:n]
assert n == 0 and back == data, (n, len(back))
check(lib.sftp_close(file), "close")
lib.sftp_free(sftp)

# A shell on a terminal that changes its size.
channel = lib.ssh_channel_new(session)
check(lib.ssh_channel_open_session(channel), "session")
check(lib.ssh_channel_request_pty_size(channel, b"xterm", 80, 24), "pty")
check(lib.ssh_channel_request_shell(channel), "shell")
check(lib.ssh_channel_change_pty_size(channel, 101, 37), "size")
line = b"stty size; exit 5\n"
assert lib.ssh_channel_write(channel, line, len(line)) == len(line)
shown = read(channel)
assert b"37 101" in shown, shown
assert lib.ssh_channel_get_exit_status(channel) == 5
lib.ssh_channel_free(channel)

# A forward that is closed half by half.
host, _, echo_port = echo.rpartition(b":")
channel = lib.ssh_channel_new(session)
check(lib.ssh_channel_open_forward(channel, host, int(echo_port), b"127.0.0.1", 1), "forward")
assert lib.ssh_channel_write(channel, b"over", 4) == 4
check(lib.ssh_channel_send_eof(channel), "eof")
assert read(channel) == b"over"
lib.ssh_channel_free(channel)
lib.ssh_disconnect(session)
lib.ssh_free(session)
print("all is well")
