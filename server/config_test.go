package main

import (
	"testing"

	"example.com/converge/pkg/cmdline"
)

// TestEveryOptionIsASetting, or it is said why not: a new option is in the file
// without anybody's doing.
func TestEveryOptionIsASetting(t *testing.T) {
	there := map[string]bool{"help": true, "version": true}
	for _, f := range program().Flags {
		there[f.Names()[0]] = true
	}
	for name, why := range noSettings {
		if !there[name] || why == "" {
			t.Errorf("%s is no option, or nothing says why it is no setting", name)
		}
	}
	// What changes are taken in for are options that may stand in the file.
	for _, name := range append([]string{"tokens", "policy", "tls-cert", "tls-key", "log-level"}, limitOptions...) {
		if !there[name] || noSettings[name] != "" {
			t.Errorf("%s is no setting", name)
		}
	}
	for _, key := range settingKeys([]cmdline.Option{{Name: "listen"}, {Name: "token"}}) {
		if (key.Not == "") != (key.Name == "listen") {
			t.Errorf("%+v", key)
		}
	}
}
