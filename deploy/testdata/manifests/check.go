package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// shutdown is how long the server takes at most after its draining.
const shutdown = 10 * time.Second

// checker collects what is wrong.
type checker struct {
	deployment *apps.Deployment
	services   []*core.Service
	configMaps []string
	accounts   []string
	wrong      []error
}

func (c *checker) failf(object meta.Object, format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Errorf("%T %s: %s", object, object.GetName(), fmt.Sprintf(format, args...)))
}

// check says what is wrong with the objects as a whole.
func check(objects []meta.Object) []error {
	c := new(checker)
	for _, object := range objects {
		if problems := validation.IsDNS1035Label(object.GetName()); len(problems) > 0 {
			c.failf(object, "name: %s", problems[0])
		}
		for _, value := range object.GetLabels() {
			if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
				c.failf(object, "label %s: %s", value, problems[0])
			}
		}
		switch o := object.(type) {
		case *apps.Deployment:
			c.deployment = o
		case *core.Service:
			c.services = append(c.services, o)
		case *core.ConfigMap:
			c.configMaps = append(c.configMaps, o.Name)
		case *core.ServiceAccount:
			c.accounts = append(c.accounts, o.Name)
		}
	}
	if c.deployment == nil {
		return []error{fmt.Errorf("there is no Deployment")}
	}
	for _, object := range objects {
		switch o := object.(type) {
		case *apps.Deployment:
			c.checkDeployment(o)
		case *core.Pod:
			c.checkPod(o, o.Spec)
		case *core.Service:
			c.selects(o, o.Spec.Selector)
			for _, port := range o.Spec.Ports {
				c.checkPort(o, port.TargetPort)
			}
		case *networking.Ingress:
			c.checkIngress(o)
		case *networking.NetworkPolicy:
			c.selects(o, o.Spec.PodSelector.MatchLabels)
			for _, rule := range o.Spec.Ingress {
				for _, port := range rule.Ports {
					c.checkPort(o, *port.Port)
				}
			}
			if !slices.Contains(o.Spec.PolicyTypes, networking.PolicyTypeEgress) {
				c.failf(o, "does not speak of Egress")
			}
		case *policy.PodDisruptionBudget:
			c.selects(o, o.Spec.Selector.MatchLabels)
		case *serviceMonitor:
			c.checkMonitor(o)
		}
	}
	return c.wrong
}

// selects says whether the labels select the server's pods.
func (c *checker) selects(object meta.Object, selector map[string]string) {
	if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(c.deployment.Spec.Template.Labels)) {
		c.failf(object, "%v does not select the server's pods", selector)
	}
}

// checkPort says whether the server's container has the port.
func (c *checker) checkPort(object meta.Object, port intstr.IntOrString) {
	for _, container := range c.deployment.Spec.Template.Spec.Containers {
		for _, p := range container.Ports {
			if port.Type == intstr.String && p.Name == port.StrVal || port.Type == intstr.Int && p.ContainerPort == port.IntVal {
				return
			}
		}
	}
	c.failf(object, "the server has no port %s", port.String())
}

func (c *checker) checkDeployment(d *apps.Deployment) {
	c.selects(d, d.Spec.Selector.MatchLabels)
	if d.Spec.Replicas == nil || *d.Spec.Replicas != 1 {
		c.failf(d, "an agent and its clients have to meet at one server")
	}
	spec := d.Spec.Template.Spec
	c.checkPod(d, spec)
	if !slices.Contains(c.accounts, spec.ServiceAccountName) {
		c.failf(d, "there is no ServiceAccount %s", spec.ServiceAccountName)
	}
	container := spec.Containers[0]
	for _, probe := range []*core.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			c.failf(d, "a probe is missing")
			continue
		}
		c.checkPort(d, probe.HTTPGet.Port)
		if tls := slices.ContainsFunc(container.Args, func(arg string) bool { return strings.HasPrefix(arg, "--tls-cert=") }); tls != (probe.HTTPGet.Scheme == core.URISchemeHTTPS) {
			c.failf(d, "the probe of %s speaks %s", probe.HTTPGet.Path, probe.HTTPGet.Scheme)
		}
	}
	if container.ReadinessProbe != nil && container.ReadinessProbe.HTTPGet.Path != "/readyz" {
		c.failf(d, "the readiness probe asks %s", container.ReadinessProbe.HTTPGet.Path)
	}
	for _, arg := range container.Args {
		text, ok := strings.CutPrefix(arg, "--drain=")
		if !ok {
			continue
		}
		drain, err := time.ParseDuration(text)
		grace := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
		if err != nil || grace < drain+shutdown {
			c.failf(d, "%v are too few for a drain of %v", grace, text)
		}
	}
}

// checkPod wants what the restricted pod security standard wants, and more.
func (c *checker) checkPod(object meta.Object, spec core.PodSpec) {
	s := spec.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		c.failf(object, "its pods may be root's, or have no seccomp profile")
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		c.failf(object, "its pods get a token for the cluster")
	}
	volumes := map[string]bool{}
	for _, volume := range spec.Volumes {
		volumes[volume.Name] = false
		if volume.ConfigMap != nil && !slices.Contains(c.configMaps, volume.ConfigMap.Name) {
			c.failf(object, "there is no ConfigMap %s", volume.ConfigMap.Name)
		}
		if volume.Secret != nil && (volume.Secret.DefaultMode == nil || *volume.Secret.DefaultMode&0o007 != 0) {
			c.failf(object, "everybody may read the secret %s", volume.Secret.SecretName)
		}
	}
	for _, container := range spec.Containers {
		s := container.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL") || len(s.Capabilities.Add) > 0 {
			c.failf(object, "container %s has more rights than it needs", container.Name)
		}
		if container.Resources.Limits.Memory().IsZero() || container.Resources.Requests.Cpu().IsZero() {
			c.failf(object, "container %s has no memory limit or asks for no CPU", container.Name)
		}
		if !strings.ContainsAny(container.Image, ":@") || strings.HasSuffix(container.Image, ":latest") {
			c.failf(object, "image %s has no fixed version", container.Image)
		}
		for _, mount := range container.VolumeMounts {
			if _, ok := volumes[mount.Name]; !ok {
				c.failf(object, "there is no volume %s", mount.Name)
			}
			volumes[mount.Name] = true
			if !mount.ReadOnly {
				c.failf(object, "volume %s can be written", mount.Name)
			}
		}
	}
	for name, mounted := range volumes {
		if !mounted {
			c.failf(object, "nobody mounts volume %s", name)
		}
	}
}

func (c *checker) checkIngress(ingress *networking.Ingress) {
	for _, rule := range ingress.Spec.Rules {
		for _, path := range rule.HTTP.Paths {
			backend := path.Backend.Service
			if !slices.ContainsFunc(c.services, func(s *core.Service) bool {
				return s.Name == backend.Name && slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == backend.Port.Name })
			}) {
				c.failf(ingress, "there is no service %s with port %s", backend.Name, backend.Port.Name)
			}
			if *path.PathType != networking.PathTypePrefix || path.Path != "/" {
				c.failf(ingress, "it does not lead everything to the server")
			}
		}
	}
	for name, value := range ingress.Annotations {
		// Both ends ping every 20 s; after three intervals a peer is gone.
		if strings.HasSuffix(name, "-timeout") && value < "61" {
			c.failf(ingress, "%s is %s", name, value)
		}
	}
}

func (c *checker) checkMonitor(m *serviceMonitor) {
	for _, endpoint := range m.Spec.Endpoints {
		if !slices.ContainsFunc(c.services, func(s *core.Service) bool {
			return labels.SelectorFromSet(m.Spec.Selector.MatchLabels).Matches(labels.Set(s.Labels)) &&
				slices.ContainsFunc(s.Spec.Ports, func(p core.ServicePort) bool { return p.Name == endpoint.Port })
		}) {
			c.failf(m, "no service has its labels and a port %s", endpoint.Port)
		}
	}
}
