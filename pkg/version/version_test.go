package version

import (
	"runtime/debug"
	"testing"
)

func TestOf(t *testing.T) {
	const revision = "0123456789abcdef0123456789abcdef01234567"
	for _, test := range []struct {
		name, version, revision, modified, want string
	}{
		{"nothing known", "", "", "", "(devel)"},
		{"release", "v1.2.3", "", "", "v1.2.3"},
		{"development with a commit", "(devel)", revision, "false", "(devel) 0123456789ab"},
		{"changed since", "(devel)", revision, "true", "(devel) 0123456789ab+dirty"},
		{"tag at a commit", "v1.2.3", revision, "false", "v1.2.3 0123456789ab"},
		{"pseudo-version", "v0.0.0-20261101000000-0123456789ab+dirty", revision, "true", "v0.0.0-20261101000000-0123456789ab+dirty"},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: test.version}}
		if test.revision != "" {
			info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: test.revision}, {Key: "vcs.modified", Value: test.modified}}
		}
		if got := of(info); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if String() == "" {
		t.Error("this binary has no version at all")
	}
}
