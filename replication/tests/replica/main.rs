//! A replica over real disks, through starts, stops, crashes and damage.

mod damage;
mod kill;
mod life;
mod owner;
