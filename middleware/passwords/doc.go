// Package passwords checks user names and passwords against an htpasswd file
// with bcrypt and argon2id hashes. What a hash may cost is bounded when the
// file is read, how many are computed at a time is bounded by a Gate, and a
// pair that was right is remembered for a short time, so that it costs a
// browser one hash and not one for each image. A name that the file does not
// hold costs as much as one that it does.
//
// Hashes are in the forms of Apache's htpasswd -B ($2y$, also $2a$ and $2b$)
// and of the PHC string format ($argon2id$v=19$m=65536,t=3,p=4$SALT$HASH).
package passwords
