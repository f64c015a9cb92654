// Package router runs pipelines. For each pipeline it builds a Watermill Router, and puts lanes
// between the source and the Router. It publishes what handlers produce, and tries again until the
// destination has confirmed it. No other package settles deliveries.
//
// [New] builds a [Host] from a [Config] without any I/O. [Host.Start] connects and subscribes.
// [Host.Stop] stops the host in stages.
//
// # The way of a message
//
//  1. intake.takeDelivery (intake.go): the transport calls it with a delivery, in a goroutine of
//     the transport. The handler describes the message, and the delivery becomes an entry.
//  2. lanes.addEntry (lanes.go): the entry goes into the lane of its key, which keeps the order.
//     From now on the entry owns the delivery.
//  3. intake.startRuns (start.go): when it is the entry's turn, a run begins. Each run has its own
//     message, which goes to Watermill through a buffered channel. Watermill starts a goroutine
//     for the message, and the next five steps happen in it.
//  4. pipeline.process (pipeline.go): Watermill calls it with the message.
//  5. pipeline.runChain (pipeline.go): the pipeline's middleware and handler turn the message into
//     outputs.
//  6. publisher.publish (publisher.go): it publishes each output to its destination, and tries
//     again until the destination has confirmed it.
//  7. run.runConfirmedHooks (run.go): middleware such as dedup records that all outputs are
//     confirmed.
//  8. intake.settleRun (settle.go): the run ends. The intake settles the delivery with the run's
//     outcome, or returns the entry to its lane for another run.
//  9. lanes.endRun (lanes.go): the next entry of the lane may start.
package router
