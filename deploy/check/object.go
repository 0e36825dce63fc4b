package check

import (
	"fmt"
	"slices"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Object is one Kubernetes object, decoded into its own type.
type Object struct {
	Kind string
	metav1.Object
}

// ScaledObject is the part of KEDA's type that the chart uses; KEDA's own module
// would bring in the clients of every cloud.
type ScaledObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		MinReplicaCount int32 `json:"minReplicaCount"`
		MaxReplicaCount int32 `json:"maxReplicaCount"`
		Advanced        struct {
			HPA struct {
				Behavior autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type       string                         `json:"type"`
			MetricType autoscalingv2.MetricTargetType `json:"metricType"`
			Metadata   map[string]string              `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

// kinds makes an empty object of each kind that the chart may have.
var kinds = map[string]func() metav1.Object{
	"v1/ConfigMap":                            func() metav1.Object { return &corev1.ConfigMap{} },
	"v1/PersistentVolumeClaim":                func() metav1.Object { return &corev1.PersistentVolumeClaim{} },
	"v1/Pod":                                  func() metav1.Object { return &corev1.Pod{} },
	"v1/Service":                              func() metav1.Object { return &corev1.Service{} },
	"v1/ServiceAccount":                       func() metav1.Object { return &corev1.ServiceAccount{} },
	"apps/v1/Deployment":                      func() metav1.Object { return &appsv1.Deployment{} },
	"apps/v1/StatefulSet":                     func() metav1.Object { return &appsv1.StatefulSet{} },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() metav1.Object { return &autoscalingv2.HorizontalPodAutoscaler{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() metav1.Object { return &networkingv1.NetworkPolicy{} },
	"policy/v1/PodDisruptionBudget":           func() metav1.Object { return &policyv1.PodDisruptionBudget{} },
	"keda.sh/v1alpha1/ScaledObject":           func() metav1.Object { return &ScaledObject{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() metav1.Object { return &monitoringv1.ServiceMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() metav1.Object { return &monitoringv1.PrometheusRule{} },
}

// Decode reads a document into the type of its kind. Unknown kinds, unknown
// fields and keys that are given twice are errors.
func Decode(document string) (Object, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		return Object{}, err
	}
	name := kind.APIVersion + "/" + kind.Kind
	empty := kinds[name]
	if empty == nil {
		return Object{}, fmt.Errorf("kind %s is not known to this check", name)
	}
	o := Object{Kind: kind.Kind, Object: empty()}
	if err := yaml.UnmarshalStrict([]byte(document), o.Object); err != nil {
		return Object{}, fmt.Errorf("%s: %w", name, err)
	}
	if o.GetName() == "" {
		return Object{}, fmt.Errorf("%s without a name", name)
	}
	return o, nil
}

// Objects decodes all documents of rendered manifests. Two objects of one kind
// and name are an error.
func Objects(manifests []Manifest) ([]Object, error) {
	var all []Object
	for _, m := range manifests {
		for _, document := range m.Documents {
			o, err := Decode(document)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.Template, err)
			}
			if slices.ContainsFunc(all, func(other Object) bool { return other.String() == o.String() }) {
				return nil, fmt.Errorf("%s: there are two of %s", m.Template, o)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// String is kind and name.
func (o Object) String() string { return o.Kind + " " + o.GetName() }

// Pods gives the pods that an object makes: their labels and spec, and the
// selector by which it finds them again. It reports false for other objects.
func (o Object) Pods() (template corev1.PodTemplateSpec, selector *metav1.LabelSelector, ok bool) {
	switch t := o.Object.(type) {
	case *appsv1.Deployment:
		return t.Spec.Template, t.Spec.Selector, true
	case *appsv1.StatefulSet:
		return t.Spec.Template, t.Spec.Selector, true
	case *corev1.Pod:
		return corev1.PodTemplateSpec{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, nil, true
	}
	return corev1.PodTemplateSpec{}, nil, false
}
