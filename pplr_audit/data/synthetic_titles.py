"""Readable titles for the synthetic market: short words, a vocabulary of its own for each genre."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Genre:
    """Words that the titles of one genre are made of; no word belongs to two genres."""

    name: str
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    places: tuple[str, ...]


def _genre(name: str, adjectives: str, nouns: str, places: str) -> Genre:
    return Genre(name, tuple(adjectives.split()), tuple(nouns.split()), tuple(places.split()))


GENRES = (
    _genre(
        "Fantasy",
        "Golden Magic Ancient Hidden Enchanted Silver Crystal Mighty Noble Sacred Glowing Secret",
        "Dragon Wizard Sword Crown Fairy Knight Unicorn Castle Potion Giant Spell Throne Elf Quest Amulet Prophecy",
        "Avalon Elfland Camelot Eldor Thornwood Rivermoor Highkeep Mistvale",
    ),
    _genre(
        "Space",
        "Cosmic Lunar Stellar Distant Orbital Atomic Solar Robotic Galactic Weightless Alien Infinite",
        "Rocket Planet Comet Robot Star Crew Signal Engine Asteroid Shuttle Moonbase Galaxy Orbit Pilot Probe Meteor",
        "Mars Saturn Orion Andromeda Jupiter Titan Neptune Vega",
    ),
    _genre(
        "Mystery",
        "Silent Missing Locked Crooked Stolen Final Strange Broken Velvet Foggy Unsolved Guilty",
        "Detective Clue Letter Witness Cipher Alibi Butler Diamond Suspect Verdict Key Mask Motive Riddle Case Trail",
        "London Baker Paris Venice Cairo Vienna Harlem Lisbon",
    ),
    _genre(
        "Romance",
        "Tender Sweet Gentle Dreamy Rosy Loving Warm Blushing Faithful Tangled Summer Perfect",
        "Heart Kiss Wedding Rose Promise Valentine Bride Dance Embrace Sweetheart Poem Song Ring Bouquet Vow Date",
        "Verona Tuscany Havana Monaco Capri Seville Malibu Provence",
    ),
    _genre(
        "Horror",
        "Dark Haunted Bloody Cursed Creepy Hollow Rotten Screaming Undead Grim Restless Wicked",
        "Ghost Zombie Vampire Grave Monster Nightmare Skull Demon Witch Coffin Shadow Scream Werewolf Crypt Ghoul Doll",
        "Salem Ravenwood Transylvania Blackmoor Gallows Deadwater Ashgrove Bonehill",
    ),
    _genre(
        "Western",
        "Dusty Lonesome Wild Rusty Outlaw Thirsty Reckless Sunburnt Bandit Lawless Stubborn Rugged",
        "Cowboy Sheriff Saddle Rider Canyon Stallion Duel Revolver Wagon Ranch Posse Saloon Coyote Lasso Spur Badge",
        "Texas Laredo Tombstone Dakota Abilene Durango Cheyenne Yuma",
    ),
    _genre(
        "Sea",
        "Deep Salty Stormy Sunken Coral Blue Tidal Drifting Brave Southern Windy Shipwrecked",
        "Whale Pirate Captain Anchor Island Lighthouse Mermaid Sailor Shark Harbor Pearl Crab Voyage Squid Reef Tide",
        "Tortuga Bermuda Nassau Zanzibar Atlantis Fiji Malta Trinidad",
    ),
    _genre(
        "Comedy",
        "Funny Silly Clumsy Crazy Goofy Lazy Happy Wacky Awkward Hungry Sleepy Cheeky",
        "Clown Uncle Cousin Pancake Banana Hat Chicken Waiter Penguin Plumber Picnic Mustache Sausage Aunt Socks Goat",
        "Boise Cleveland Toledo Omaha Jersey Burbank Peoria Scranton",
    ),
)


def titles(genre: Genre, series: Int[np.ndarray, "items"], rng: np.random.Generator) -> list[str]:
    """Different titles of two to four words, one for each entry of ``series``; those of one series share a noun.

    Two words are as frequent as three and four together. Up to 1,000 entries over 16 series or fewer find a title.
    """
    nouns = [genre.nouns[i] for i in rng.permutation(len(genre.nouns))]
    found = [""] * len(series)
    for number in np.unique(series):
        items = np.flatnonzero(series == number)
        for item, title in zip(items, _series_titles(genre, nouns[number], len(items), rng), strict=True):
            found[item] = title
    return found


def _series_titles(genre: Genre, noun: str, count: int, rng: np.random.Generator) -> list[str]:
    short = [f"{adjective} {noun}" for adjective in genre.adjectives]
    placed = [f"{noun} of {place}" for place in genre.places]
    long = [f"{adjective} {rest}" for adjective, rest in product(genre.adjectives, placed)]
    shuffled = [[words[i] for i in rng.permutation(len(words))] for words in (short, placed, long)]
    wanted = [min(count - count // 2, len(short)), min(count // 4, len(placed))]
    wanted.append(count - sum(wanted))
    return [title for words, share in zip(shuffled, wanted, strict=True) for title in words[:share]]
