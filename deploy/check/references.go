package check

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// References reports names that lead nowhere: selectors that match no pods,
// ports that no container has, and objects that are neither rendered nor in
// outside, where the documentation says who makes them ("Secret forager-nats").
func References(objects []Object, outside []string) (bad []string) {
	known := map[string]bool{}
	for _, name := range outside {
		known[name] = true
	}
	for _, o := range objects {
		known[o.String()] = true
	}
	r := references{objects: objects, known: known}
	for _, o := range objects {
		r.at = o.String()
		r.check(o)
	}
	return r.bad
}

type references struct {
	objects []Object
	known   map[string]bool
	at      string
	bad     []string
}

func (r *references) report(format string, args ...any) {
	r.bad = append(r.bad, r.at+": "+fmt.Sprintf(format, args...))
}

func (r *references) need(kind, name string) {
	if !r.known[kind+" "+name] {
		r.report("there is no %s %s", kind, name)
	}
}

// pods gives the pod templates that a selector matches.
func (r *references) pods(selector labels.Selector) (found []corev1.PodTemplateSpec) {
	for _, o := range r.objects {
		if template, _, ok := o.Pods(); ok && selector.Matches(labels.Set(template.Labels)) {
			found = append(found, template)
		}
	}
	return found
}

// selected is pods for a selector that must match something.
func (r *references) selected(what string, selector *metav1.LabelSelector) []corev1.PodTemplateSpec {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		r.report("%s: %v", what, err)
		return nil
	}
	found := r.pods(s)
	if len(found) == 0 {
		r.report("%s matches no pods: %s", what, s)
	}
	return found
}

func (r *references) check(o Object) {
	if template, selector, ok := o.Pods(); ok {
		r.podReferences(template.Spec)
		if selector != nil {
			if found := r.selected("selector", selector); len(found) > 1 {
				r.report("selector takes the pods of others too")
			}
			for key, value := range selector.MatchLabels {
				if template.Labels[key] != value {
					r.report("selector wants %s=%s, its own pods have %q", key, value, template.Labels[key])
				}
			}
		}
	}
	switch t := o.Object.(type) {
	case *appsv1.StatefulSet:
		r.need("Service", t.Spec.ServiceName)
	case *corev1.Service:
		for _, pod := range r.selected("selector", &metav1.LabelSelector{MatchLabels: t.Spec.Selector}) {
			for _, p := range t.Spec.Ports {
				r.port(pod, p.TargetPort)
			}
		}
	case *policyv1.PodDisruptionBudget:
		r.selected("selector", t.Spec.Selector)
	case *autoscalingv2.HorizontalPodAutoscaler:
		r.need(t.Spec.ScaleTargetRef.Kind, t.Spec.ScaleTargetRef.Name)
		for _, m := range t.Spec.Metrics {
			if m.Object != nil {
				r.need(m.Object.DescribedObject.Kind, m.Object.DescribedObject.Name)
			}
		}
	case *ScaledObject:
		r.need("Deployment", t.Spec.ScaleTargetRef.Name)
	case *networkingv1.NetworkPolicy:
		r.policy(t)
	}
}

// policy checks that a network policy is about pods and ports that exist.
func (r *references) policy(p *networkingv1.NetworkPolicy) {
	own := r.selected("podSelector", &p.Spec.PodSelector)
	for _, rule := range p.Spec.Ingress {
		r.peers(rule.From)
		for _, port := range rule.Ports {
			if port.Port != nil && !slices.ContainsFunc(own, func(pod corev1.PodTemplateSpec) bool { return hasPort(pod.Spec, *port.Port) }) {
				r.report("none of its pods has port %s", port.Port)
			}
		}
	}
	for _, rule := range p.Spec.Egress {
		for _, pod := range r.peers(rule.To) {
			for _, port := range rule.Ports {
				if port.Port != nil {
					r.port(pod, *port.Port)
				}
			}
		}
	}
}

// peers gives the pods of this chart among the peers of a rule.
func (r *references) peers(peers []networkingv1.NetworkPolicyPeer) (found []corev1.PodTemplateSpec) {
	for _, peer := range peers {
		if peer.PodSelector != nil && peer.NamespaceSelector == nil {
			found = append(found, r.selected("peer", peer.PodSelector)...)
		}
	}
	return found
}

// port demands that a pod has a port, by name or number.
func (r *references) port(pod corev1.PodTemplateSpec, want intstr.IntOrString) {
	if !hasPort(pod.Spec, want) {
		r.report("the pods of %s have no port %s", pod.Labels["app.kubernetes.io/component"], want.String())
	}
}

func hasPort(spec corev1.PodSpec, want intstr.IntOrString) bool {
	return slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return p.Name == want.StrVal && want.Type == intstr.String || p.ContainerPort == want.IntVal && want.Type == intstr.Int
		})
	})
}

func (r *references) podReferences(spec corev1.PodSpec) {
	r.need("ServiceAccount", spec.ServiceAccountName)
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		switch {
		case v.Secret != nil:
			r.need("Secret", v.Secret.SecretName)
		case v.ConfigMap != nil:
			r.need("ConfigMap", v.ConfigMap.Name)
		case v.PersistentVolumeClaim != nil:
			r.need("PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName)
		}
	}
	for _, o := range r.objects {
		if set, ok := o.Object.(*appsv1.StatefulSet); ok && o.String() == r.at {
			for _, claim := range set.Spec.VolumeClaimTemplates {
				volumes[claim.Name] = true
			}
		}
	}
	for _, c := range spec.Containers {
		mounted := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				r.report("container %s mounts %s, which is no volume", c.Name, m.Name)
			}
			mounted[m.Name] = true
		}
		for name := range volumes {
			if !mounted[name] {
				r.report("volume %s is mounted nowhere", name)
			}
		}
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				r.need("ConfigMap", from.ConfigMapRef.Name)
			}
			if from.SecretRef != nil {
				r.need("Secret", from.SecretRef.Name)
			}
		}
		for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe != nil && probe.HTTPGet != nil {
				if alone := (corev1.PodSpec{Containers: []corev1.Container{c}}); !hasPort(alone, probe.HTTPGet.Port) {
					r.report("a probe asks port %s, which container %s does not have", probe.HTTPGet.Port.String(), c.Name)
				}
			}
		}
	}
}
