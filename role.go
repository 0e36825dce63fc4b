package forager

// Role is a service that a process can play.
type Role string

// The roles. A process with the nats role carries the bus for all others.
const (
	RoleNATS         Role = "nats"
	RoleCluster      Role = "cluster"
	RoleReplay       Role = "replay"
	RoleRewardServer Role = "rewardsrv"
	RoleRetriever    Role = "retriever"
	RoleLearner      Role = "learner"
	RoleActor        Role = "actor"
)

// Roles lists all roles, in the order in which a cluster is started.
func Roles() []Role {
	return []Role{RoleNATS, RoleCluster, RoleReplay, RoleRewardServer, RoleRetriever, RoleLearner, RoleActor}
}

// RoleOperator plays nothing: it is whose credentials people use who look at a
// run.
const RoleOperator Role = "operator"
