package container

import (
	"net"
	"strings"
	"testing"
	"time"
)

func TestInvalidConfigurations(t *testing.T) {
	const image = `"image": "debian"`
	for _, c := range []struct{ text, want string }{
		{`{}`, "no image is given"},
		{`{"execution": {` + image + `, "existing": "x"}}`, "both an image and an existing container"},
		{`{"execution": {` + image + `, "container": {"Image": "other"}}}`, "two images"},
		{`{"execution": {"image": "de bian"}}`, "not the name of an image"},
		{`{"execution": {"image": "debian?x=y"}}`, "not the name of an image"},
		{`{"execution": {"existing": "../x"}}`, "not the name of a container"},
		{`{"execution": {"existing": "label="}}`, "label"},
		{`{"execution": {` + image + `, "mode": "sesion"}}`, `mode "sesion" is not known`},
		{`{"execution": {` + image + `, "imagePullPolicy": "Often"}}`, `"Often" is not known`},
		{`{"execution": {` + image + `, "disableAgent": true}}`, "needs an idle command"},
		{`{"execution": {` + image + `, "disableAgent": true, "guestFile": "x", "mode": "session"}}`, "agent is disabled"},
		{`{"execution": {` + image + `, "mode": "session", "host": {"RestartPolicy": {"Name": "always"}}}}`, `restart policy "always" does not fit mode session`},
		{`{"execution": {` + image + `, "host": {"RestartPolicy": {"Name": "always"}}}}`, "restart policy"},
		{`{"execution": {"existing": "x", "mode": "session"}}`, "cannot be used in mode session"},
		{`{"execution": {` + image + `, "idleCommand": ["a"], "idleProgram": ["a"]}}`, "both idleCommand and idleProgram"},
		{`{"execution": {` + image + `, "idleCommand": []}}`, ""},
		{`{"execution": {` + image + `, "shellCommand": [""]}}`, "without a program"},
		{`{"execution": {` + image + `, "agentPath": "usr/bin/x"}}`, "does not begin with /"},
		{`{"execution": {` + image + `, "platform": {"architecture": "arm64"}}}`, "no os"},
		{`{"execution": {` + image + `, "platform": {"os": "linux", "os.version": "6.1"}}}`, "os.version"},
		{`{"execution": {` + image + `, "subsystems": {"sftp": " "}}}`, `"sftp" has no program`},
		{`{"execution": {` + image + `, "readOnlySFTP": true, "subsystems": {"sftp": "x"}}}`, "read-only sftp"},
		{`{"execution": {` + image + `, "readOnlySFTP": true, "subsystems": {"other": "x"}}}`, ""},
		{`{"execution": {` + image + `}, "timeouts": {"http": "-1s"}}`, "negative"},
		{`{"execution": {` + image + `}, "timeouts": {"http": "1 minute"}}`, "not a duration"},
		{`{"execution": {` + image + `}, "connection": {"host": "/var/run/docker.sock"}}`, "neither unix:// nor tcp://"},
		{`{"execution": {` + image + `}, "connection": {"host": "tcp://h:1/x"}}`, "not of the form"},
		{`{"execution": {` + image + `}, "connection": {"cert": "x"}}`, "needs cacert"},
		{`{"execution": {` + image + `}, "connection": {"cacert": "/no/such/file"}}`, "read TLS"},
		{`{"execution": {` + image + `}, "connection": {"cacert": "-----BEGIN x"}}`, "no certificate"},
		{`{"execution": {` + image + `}, "colour": 1}`, `unknown field "colour"`},
		{`{"execution": {` + image + `, "host": {"Memori": 1}}}`, `unknown field "Memori"`},
		{`{"execution": {` + image + `}} {}`, "something follows"},
		{`{"execution": {` + image + `, "idleProgram": ["sleep", "9"], "host": {"Memory": 1048576, "CapAdd": ["NET_ADMIN"]}, "cmd": ["sh"]}}`, ""},
		{`{"execution": {"container": {"Image": "debian"}, "mode": "session", "disableAgent": true}}`, ""},
		{`{"execution": {"existing": "label=a=b"}}`, ""},
		{`{"execution": {` + image + `}, "timeouts": {"containerStart": "90s", "signal": 1000}}`, ""},
	} {
		cfg, err := ParseConfig([]byte(c.text))
		if err == nil {
			var h *Handler
			if h, err = New(net.TCPAddr{}, "c", cfg, nil, nil, nil); err == nil {
				h.OnDisconnect()
			}
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.want)
		}
	}
	if time.Duration(Duration(0).or(time.Minute)) != time.Minute || Duration(5).or(time.Minute) != 5 {
		t.Error("a duration has the wrong default")
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"execution": {"image": "x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cfg, err := ParseConfig(data); err == nil {
			_ = cfg.Validate()
		}
	})
}
