// Package router runs pipelines. It builds a Watermill Router for each, puts lanes between the source and the Router,
// publishes what handlers produce until it is confirmed, and is the only place that settles deliveries.
//
// [New] builds a [Host] from a [Config] without any I/O, [Host.Start] brings it up, [Host.Stop] takes it down in stages.
//
// # The way of a message
//
//  1. intake.take (intake.go): the transport hands a delivery over, in the transport's goroutine. The handler describes
//     the message, and the delivery becomes the entry of a lane.
//  2. lanes.add (lanes.go): the lane of its key keeps the order. The entry owns the delivery from here on.
//  3. intake.startRuns (start.go): when it is the entry's turn, a run begins. It gets a message of its own, which goes to
//     Watermill through a buffered channel. Watermill starts a goroutine for it; all that follows happens in that one.
//  4. pipeline.process (pipeline.go): Watermill calls it with the message.
//  5. pipeline.run (pipeline.go): the pipeline's chain of middleware and handler turns the message into others.
//  6. publisher.publish (publisher.go): each of them goes to its destination, until that has confirmed it.
//  7. run.confirm (run.go): whoever asked for it, such as dedup, records that all is confirmed.
//  8. intake.settle (settle.go): the run ends, and the delivery is settled with its outcome; or the entry goes back to its
//     lane to be run again, with a new message made from the delivery.
//  9. lanes.settle (lanes.go): the lane lets the next entry of its key start.
package router
