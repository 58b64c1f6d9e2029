package main

import (
	"os"
	"strings"
	"testing"
)

// TestFaults puts one fault after the other into the manifests that we ship.
func TestFaults(t *testing.T) {
	data, err := os.ReadFile("../../kubernetes/converge.yaml")
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	if err := run(nil, strings.NewReader(good), t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, old, new, want string }{
		{"unknown field", "replicas:", "replica:", `unknown field "replica"`},
		{"wrong type", "replicas: 1", "replicas: one", "cannot unmarshal"},
		{"unknown kind", "kind: PodDisruptionBudget", "kind: PodDisruption", "no kind that is expected"},
		{"replicas", "replicas: 1", "replicas: 2", "meet at one server"},
		{"root", "runAsUser: 65532", "runAsUser: 0", "may be root's"},
		{"root file system", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "more rights"},
		{"privileges", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "more rights"},
		{"probe's port", "port: http\n              scheme", "port: web\n              scheme", "no port web"},
		{"readiness", "path: /readyz", "path: /healthz", "readiness probe asks"},
		{"grace", "--drain=5s", "--drain=25s", "too few"},
		{"target port", "targetPort: http", "targetPort: 8081", "no port 8081"},
		{"backend", "port:\n                  name: http", "port:\n                  name: web", "there is no service"},
		{"image", "image: \"converge-server:", "image: \"converge-server:latest\" #", "no fixed version"},
		{"secret's mode", "defaultMode: 0440", "defaultMode: 0444", "everybody may read"},
		{"timeout", `proxy-read-timeout: "75"`, `proxy-read-timeout: "30"`, "is 30"},
		{"volume", "- name: state\n              mountPath", "- name: stat\n              mountPath", "no volume stat"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(good, test.old) {
				t.Fatalf("the manifests have no %q", test.old)
			}
			err := run(nil, strings.NewReader(strings.Replace(good, test.old, test.new, 1)), t.Output())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
