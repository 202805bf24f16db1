//! Groups, readers, settlement.

use traced_broker::driver::{Disposition, Driver};

use crate::driving::*;

#[tokio::test]
async fn members_of_a_group_share_its_messages() {
    let topic = unique("share");
    let amqp = connect("").await.unwrap();
    let mut one = subscribe(&amqp, group(&topic, "g")).await;
    amqp.declare(&topic).await.unwrap();
    confirmed(amqp.publish(&topic, outbound("hello"))).await.unwrap();
    let m = next(&mut one).await;
    assert_eq!(text(&m), "hello");
    settle(m, Disposition::Ack).await.unwrap();
    amqp.close().await.unwrap();
}
