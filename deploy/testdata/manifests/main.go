// Command manifests reads Kubernetes manifests from standard input and says what
// is wrong with them: fields that Kubernetes does not have, references that lead
// nowhere, and what every pod of ours has to have. With --args it prints the
// server's arguments instead, for the server to judge. It is a module of its own
// so that no shipped one requires Kubernetes' types.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// serviceMonitor is what the chart uses of the Prometheus operator's type.
type serviceMonitor struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		Selector  meta.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     string `json:"port"`
			Path     string `json:"path"`
			Interval string `json:"interval"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// kinds makes an empty object of each kind that our manifests may hold.
var kinds = map[string]func() meta.Object{
	"v1 ConfigMap":                            func() meta.Object { return new(core.ConfigMap) },
	"v1 Namespace":                            func() meta.Object { return new(core.Namespace) },
	"v1 Pod":                                  func() meta.Object { return new(core.Pod) },
	"v1 Service":                              func() meta.Object { return new(core.Service) },
	"v1 ServiceAccount":                       func() meta.Object { return new(core.ServiceAccount) },
	"apps/v1 Deployment":                      func() meta.Object { return new(apps.Deployment) },
	"networking.k8s.io/v1 Ingress":            func() meta.Object { return new(networking.Ingress) },
	"networking.k8s.io/v1 NetworkPolicy":      func() meta.Object { return new(networking.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":           func() meta.Object { return new(policy.PodDisruptionBudget) },
	"monitoring.coreos.com/v1 ServiceMonitor": func() meta.Object { return new(serviceMonitor) },
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	objects, err := decode(in)
	if err != nil {
		return err
	}
	if slices.Contains(args, "--args") {
		for _, object := range objects {
			if deployment, ok := object.(*apps.Deployment); ok {
				for _, arg := range deployment.Spec.Template.Spec.Containers[0].Args {
					fmt.Fprintln(out, arg)
				}
			}
		}
		return nil
	}
	if wrong := check(objects); len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	for _, object := range objects {
		fmt.Fprintf(out, "  %T %s\n", object, object.GetName())
	}
	return nil
}

// decode reads the documents and refuses what their types do not know.
func decode(in io.Reader) ([]meta.Object, error) {
	var objects []meta.Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(in))
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var head meta.TypeMeta
		if err := yaml.Unmarshal(text, &head); err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, text)
		}
		if head.Kind == "" {
			continue // a document of comments
		}
		empty, ok := kinds[head.APIVersion+" "+head.Kind]
		if !ok {
			return nil, fmt.Errorf("no kind that is expected here: %s %s", head.APIVersion, head.Kind)
		}
		object := empty()
		if err := yaml.UnmarshalStrict(text, object); err != nil {
			return nil, fmt.Errorf("%s: %w in:\n%s", head.Kind, err, text)
		}
		objects = append(objects, object)
	}
	if len(objects) == 0 {
		return nil, errors.New("no manifest found")
	}
	return objects, nil
}
