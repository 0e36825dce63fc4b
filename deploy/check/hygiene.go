package check

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// Hygiene reports what a careful reader would object to in single pods: what
// Kubernetes' own restricted level forbids, and what kube-linter looks for.
func Hygiene(objects []Object) (bad []string) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return []string{err.Error()}
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, o := range objects {
		template, _, ok := o.Pods()
		if !ok {
			continue
		}
		report := func(format string, args ...any) { bad = append(bad, o.String()+": "+fmt.Sprintf(format, args...)) }
		for _, result := range evaluator.EvaluatePod(restricted, &template.ObjectMeta, &template.Spec) {
			if !result.Allowed {
				report("restricted pods must not: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		podHygiene(template.Spec, report)
		for _, c := range append(template.Spec.InitContainers[:len(template.Spec.InitContainers):len(template.Spec.InitContainers)], template.Spec.Containers...) {
			containerHygiene(c, func(format string, args ...any) { report("container %s: "+format, append([]any{c.Name}, args...)...) })
		}
		if set, ok := o.Object.(*appsv1.StatefulSet); ok && len(set.Spec.VolumeClaimTemplates) > 0 && template.Spec.SecurityContext.FSGroup == nil {
			report("its volumes have no fsGroup, so the user may not write to them")
		}
	}
	return bad
}

func podHygiene(spec corev1.PodSpec, report func(string, ...any)) {
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		report("mounts a token for Kubernetes' API, which it does not use")
	}
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		report("gets variables of services, which look like settings")
	}
	if spec.ServiceAccountName == "" || spec.ServiceAccountName == "default" {
		report("runs under the default service account")
	}
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		report("shares a namespace with its host")
	}
	if len(spec.TopologySpreadConstraints) == 0 {
		report("nothing spreads the pods")
	}
	if spec.TerminationGracePeriodSeconds == nil || *spec.TerminationGracePeriodSeconds < 45 {
		report("is killed before roles had admin.stop_timeout (30 s) to end")
	}
	for _, v := range spec.Volumes {
		if v.HostPath != nil {
			report("volume %s is a folder of the host", v.Name)
		}
		if v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil {
			report("volume %s may fill the host's disk", v.Name)
		}
	}
}

// containerHygiene wants probes of containers that serve something.
func containerHygiene(c corev1.Container, report func(string, ...any)) {
	_, tag, tagged := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
	if !tagged || tag == "latest" {
		report("image %s may be another one tomorrow", c.Image)
	}
	if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		report("may write to its root file system")
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if request := c.Resources.Requests[name]; request.IsZero() {
			report("requests no %s", name)
		}
	}
	if c.Resources.Limits.Memory().IsZero() {
		report("has no limit of memory")
	}
	if len(c.Ports) > 0 && (c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil) {
		report("is not probed for start, life and readiness")
	}
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			report("takes port %d of the host", p.HostPort)
		}
	}
	seen := map[string]bool{}
	for _, e := range c.Env {
		if seen[e.Name] {
			report("variable %s is set twice", e.Name)
		}
		seen[e.Name] = true
	}
}
