// Package security holds the credentials of a process: who it is towards the
// others, and how it knows them.
//
// A process has one folder, and in it all that it may know:
//
//	ca.crt           certificate of the authority that all trust
//	tls.crt, tls.key its own certificate; the common name is its role
//	nats.seed        nkey seed for the bus; the nats role has none
//	http.token       bearer token of the HTTP servers
//	nats-users.json  public nkeys by role; the nats role alone has it
//
// Load reads and checks such a folder; Issue makes an authority and the folders of
// all roles. Without a folder there are no credentials, and CheckListen keeps
// servers on loopback.
//
// No error, log line or printed value of this package holds a secret.
package security
