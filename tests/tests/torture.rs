//! A few rounds of what `brigade-torture` does for as long as one likes.

use brigade_tests::torture;

#[test]
fn nothing_is_lost_however_often_it_dies() {
    let outcome = torture::run(10, 64 << 20, 20_261_123);
    println!("{outcome}");
    assert_eq!(outcome.rounds, 10);
    assert!(outcome.kills > 20, "{outcome}");
    assert!(outcome.faults > 20, "{outcome}");
}
